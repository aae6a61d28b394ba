"""Small models of each kind of encoder; all stream, except where a comment says otherwise."""

# A short training must leave the plateau on which these models emit next to nothing. That takes a
# CTC loss of full weight, whole utterances without SpecAugment, and the Adam of their papers.
_QUICK = {"use_ctc": True, "ctc_loss_scale": 1.0, "enable_spec_aug": False}
_ADAM = {
    "optim": "adam",
    "adam_betas": "0.9,0.98",
    "base_lr": 0.001,
    "schedule": "hold",
    "warmup_batches": 100.0,
    "hold_batches": 700,
    "decay_batches": 600,
    "clip_grad_norm": 5.0,
}

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
        # Twice the usual steps: what it takes to leave the plateau, and then to write a digit twice
        # where it is said twice, is a number of steps, not of utterances.
        "max_duration": 15.0,
        "lr_batches": 1000.0,
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
        "abs_pos_emb": False,
        "causal": False,  # training on chunks takes several times as many batches
        **_QUICK,
        **_ADAM,
    },
    "contextnet": {  # digits are too short for its usual frames of 80 ms: 40 ms here
        "encoder": "contextnet",
        "exp_dir": "exp-contextnet",
        "alpha": 1.0,
        "block_channels": "128,128,128,160,160,160,192,192,192,256",
        "block_layers": "1,3,3,3,3,3,3,3,3,1",
        "block_strides": "1,1,2,1,1,2,1,1,1,1",
        "padding": "same",
        "causal": False,  # as for the Conformer
        **_QUICK,
        **_ADAM,
    },
    "lstm": {
        "encoder": "lstm",
        "exp_dir": "exp-lstm",
        "num_encoder_layers": 4,
        "encoder_dim": 144,
        "rnn_hidden_size": 288,
        "dim_feedforward": 432,
        **_QUICK,
        **_ADAM,
    },
    "zipformer1": {  # 3.8 million parameters
        "encoder": "zipformer1",
        "exp_dir": "exp-zipformer1",
        "num_encoder_layers": "2,2,2,2",
        "zipformer_downsampling_factors": "1,2,4,2",
        "encoder_dims": "128",
        "attention_dims": "96",
        "encoder_unmasked_dims": "96",
        "feedforward_dims": "320",
        "nhead": "4",
        "cnn_module_kernels": "31",
    },
}
