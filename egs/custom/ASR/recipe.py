"""A streaming Zipformer transducer on your own recordings, from scratch or a released model.

The defaults suit some hours of speech on one machine. For hundreds of hours, train a larger model
(``./train.py --help`` lists the sizes) with a larger ``--max-duration``, ``--lr-batches 7500`` and
``--warm-step 2000``.
"""

from asr_core.data.corpus import Corpus


class Custom(Corpus):
    """The manifests that prepare.sh makes of train.tsv, dev.tsv and test.tsv."""

    name = "custom"


CORPUS = Custom
EXP_DIR = "exp"
LANG_DIR = "data/lang_bpe"
_DECODING = {"epoch": 30, "avg": 9, "max_duration": 200.0}
_CHUNK = {"chunk_size": "16", "left_context_frames": "128"}  # 320 ms, with 2.56 s before them
_SMALL_DATA = {
    "ref_duration": 60.0,
    "average_period": 50,
    "save_every_n": 500,
    "keep_last_k": 5,
    "max_duration": 100.0,
    "num_buckets": 15,
}
DEFAULTS = {
    "train": {
        **_SMALL_DATA,
        # model
        "num_encoder_layers": "2,2,2,2",
        "downsampling_factor": "1,2,4,2",
        "encoder_dim": "128,192,256,192",
        "encoder_unmasked_dim": "96,128,192,128",
        "feedforward_dim": "384,512,768,512",
        "num_heads": "4",
        "cnn_module_kernel": "31,31,15,31",
        "decoder_dim": 256,
        "joiner_dim": 256,
        "causal": True,
        # training
        "num_epochs": 30,
        "lr_batches": 2500.0,
        "warm_step": 800,
        "valid_interval": 1000,
        "tail_silence_prob": 0.5,
    },
    "finetune": {
        **_SMALL_DATA,
        "num_epochs": 10,
        "warmup_batches": 100.0,
        "valid_interval": 500,
        "bpe_model": f"{LANG_DIR}/bpe.model",
    },
    "decode": _DECODING,
    "streaming_decode": {**_DECODING, **_CHUNK, "num_decode_streams": 50},
    "export": _CHUNK,
    "transcribe": {"model": f"{EXP_DIR}/jit_script_chunk_16_left_128.pt"},
}
