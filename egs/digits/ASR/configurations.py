"""Small models of each kind of encoder: what ``train.py --model`` chooses among. All stream but for those that say otherwise."""

MODELS = {
    "zipformer": {  # 3.6 million parameters
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
        "exp_dir": "exp-conformer",
        "num_encoder_layers": 6,
        "encoder_dim": 128,
        "nhead": 4,
        "feedforward_dim": 512,
        "cnn_module_kernel": 16,
        "front_end_channels": 64,
        "norm_eps": 1e-5,
        "batch_norm_decay": 0.95,  # a thousand batches are too few for 0.999
        "causal": True,
    },
    "contextnet": {  # one output frame in 80 ms
        "encoder": "contextnet",
        "exp_dir": "exp-contextnet",
        "alpha": 1.0,
        "block_channels": "128,128,128,160,160,160,192,192,192,256",
        "block_layers": "1,3,3,3,3,3,3,3,3,1",
        "block_strides": "1,1,2,1,1,2,1,1,2,1",
        "causal": True,
    },
    "lstm": {
        "encoder": "lstm",
        "exp_dir": "exp-lstm",
        "num_encoder_layers": 4,
        "encoder_dim": 144,
        "rnn_hidden_size": 288,
        "dim_feedforward": 432,
    },
}
