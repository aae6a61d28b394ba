"""A Zipformer with CTC; optional are CR-CTC and an attention decoder."""

_TRANSCRIBING = ("transcribe", "pretrained", "jit_pretrained", "jit_pretrained_streaming")

BASE = "../librispeech.py"
EXP_DIR = "zipformer_ctc/exp"
DEFAULTS = {
    "train": {"use_transducer": False, "use_ctc": True},
    "decode": {"decoding_method": "ctc-greedy-search"},
    "streaming_decode": {"decoding_method": "ctc-greedy-search"},
    **{program: {"method": "ctc-greedy-search"} for program in _TRANSCRIBING},
}
