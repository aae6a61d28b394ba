"""A Conformer with an LSTM transducer and the full-sum loss; ``--model`` chooses size and head."""

_LIVE = {"on_the_fly_feats": True}  # log-mel features, which prepare.sh does not store
_EMA = {"use_ema": True}  # one checkpoint's exponential average, so --avg becomes 1

BASE = "../librispeech.py"
EXP_DIR = "conformer_rnnt/exp"
LANG_DIR = "data/lang_bpe_1024"
ENCODER = "conformer"
MODELS = {
    f"conformer-{size}-{head}": {"model_size": f"{size}-rnnt" if head == "rnnt" else size, **options}
    for head, options in (("rnnt", {"loss": "full"}), ("ctc", {"use_transducer": False, "use_ctc": True}))
    for size in ("l", "m", "s", "test")
}
DEFAULTS = {
    "train": {
        **_LIVE,
        "feature_type": "log-mel",
        "enable_musan": False,
        "spec_aug": "adaptive",  # ten masks of up to 5% of the frames each, two of up to 27 filters
        "max_utt_duration": 30.0,
        # the peak of the learning rate is meant for batches of 2048 utterances
        "optim": "adam",
        "adam_betas": "0.9,0.98",
        "adam_eps": 1e-9,
        "l2": 1e-6,
        "clip_grad_norm": 1.0,
        "schedule": "noam",
        "base_lr": 0.0022097,  # 0.05 / sqrt(512)
        "warmup_batches": 10000.0,
        "noam_offset": 1.0,
        "ema_decay": 0.9999,
        "valid_with_ema": True,
    },
    # models with CTC alone need another method
    "decode": {**_LIVE, **_EMA, "decoding_method": "alignment_length_sync_search", "beam_size": 8},
    "streaming_decode": {**_LIVE, **_EMA},
    "export": _EMA,
    "generate_averaged_model": _EMA,
    "finetune": _LIVE,
}
