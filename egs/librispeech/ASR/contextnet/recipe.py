"""ContextNet with an LSTM transducer and the full-sum loss; ``--alpha`` chooses the width."""

BASE = "../librispeech.py"
EXP_DIR = "contextnet/exp"
LANG_DIR = "data/lang_bpe_1000"
ENCODER = "contextnet"
DEFAULTS = {
    "train": {
        # model
        "alpha": 0.5,
        "predictor": "lstm",
        "predictor_embedding_dim": 640,
        "predictor_layer_norm": True,
        "decoder_dim": 512,
        "joiner_dim": 512,
        "joiner_decoder_bias": False,
        "loss": "full",
        "joiner_noise": 0.075,  # from batch 20000 on, as the predictor's
        # data
        "enable_musan": False,
        "spec_aug": "adaptive",
        "spec_aug_freq_masks": 1,
        # training
        "optim": "adam",
        "adam_betas": "0.9,0.98",
        "adam_eps": 1e-9,
        "l2": 1e-6,
        "schedule": "noam",
        "base_lr": 0.00091287,  # 2 / sqrt(320 * 15000)
        "warmup_batches": 15000.0,
    },
}
