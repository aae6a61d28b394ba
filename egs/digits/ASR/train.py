#!/usr/bin/env python3
"""Train a streaming Zipformer transducer (3.6 million parameters) on connected digits; four epochs take minutes on a CPU."""

from digits import Digits

from asr_core.bin.train import main

DEFAULTS = {
    # model
    "num_encoder_layers": "2,2,2,2",
    "downsampling_factor": "1,2,4,2",
    "encoder_dim": "96,128,128,128",
    "encoder_unmasked_dim": "64,96,96,96",
    "feedforward_dim": "256",
    "num_heads": "4",
    "cnn_module_kernel": "31,31,15,31",
    "decoder_dim": 128,
    "joiner_dim": 128,
    "causal": True,
    # a short training with small batches
    "num_epochs": 4,
    "base_lr": 0.045,
    "lr_batches": 500.0,
    "lr_epochs": 2.0,
    "warm_step": 300,
    "ref_duration": 4.0,
    "average_period": 20,
    "save_every_n": 200,
    "keep_last_k": 3,
    # data
    "max_duration": 30.0,
    "num_buckets": 10,
    "num_workers": 0,
    "enable_musan": False,
    "speed_perturb": False,
}

if __name__ == "__main__":
    main(corpus=Digits, defaults=DEFAULTS)
