"""The streaming Zipformer of 2022; names and options are those of icefall's recipe."""

_CHUNK = {"decode_chunk_len": 32}  # feature frames: 320 ms
_SCHEDULES = {"warmup_start": 0.5, "ref_duration": 0.0}  # those of modules count batches of any size
BASE = "../librispeech.py"
EXP_DIR = "pruned_transducer_stateless7_streaming/exp"
ENCODER = "zipformer1"
SCRIPT_NAME = "cpu_jit.pt"
DEFAULTS = {
    "train": {"base_lr": 0.05, "lr_batches": 5000.0, "save_every_n": 2000, **_SCHEDULES},
    "decode": {"avg": 9, **_CHUNK},
    "streaming_decode": _CHUNK,
    "export": _CHUNK,
    "jit_trace_export": _CHUNK,
    "pretrained": _CHUNK,
}
