"""Small models of each kind of encoder: what ``train.py --model`` chooses among. All stream but for those that say otherwise."""

MODELS = {
    "zipformer": {  # 3.5 million parameters
        "num_encoder_layers": "2,2,2,2",
        "downsampling_factor": "1,2,4,2",
        "encoder_dim": "96,128,128,128",
        "encoder_unmasked_dim": "64,96,96,96",
        "feedforward_dim": "256",
        "num_heads": "4",
        "cnn_module_kernel": "31,31,15,31",
        "causal": True,
    },
    "conformer": {
        "encoder": "conformer",
        "exp_dir": "exp_conformer",
        "num_encoder_layers": 6,
        "encoder_dim": 128,
        "nhead": 4,
        "feedforward_dim": 512,
        "cnn_module_kernel": 16,
        "front_end_channels": 64,
        "norm_eps": 1e-5,
        "causal": True,
    },
}
