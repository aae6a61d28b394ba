#!/usr/bin/env python3
"""Train a small streaming transducer on connected digits; four epochs take minutes on a CPU. --model chooses the kind of encoder."""

from configurations import MODELS
from digits import Digits

from asr_core.bin.train import main

DEFAULTS = {
    "decoder_dim": 128,
    "joiner_dim": 128,
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
    main(corpus=Digits, defaults=DEFAULTS, models=MODELS)
