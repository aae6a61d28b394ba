#!/usr/bin/env python3
"""Train a Conformer with an LSTM transducer on LibriSpeech, by the sum over all alignments; --model chooses size and head."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from configurations import MODELS
from librispeech import LibriSpeech

from asr_core.bin.train import main

DEFAULTS = {
    "exp_dir": "conformer_rnnt/exp",
    "bpe_model": "data/lang_bpe_1024/bpe.model",
    # data
    "feature_type": "log-mel",
    "on_the_fly_feats": True,
    "enable_musan": False,
    "spec_aug": "adaptive",  # ten masks of up to 5% of the frames each, two of up to 27 filters
    "max_utt_duration": 30.0,
    # training; the peak of the learning rate is meant for batches of 2048 utterances
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
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS, models=MODELS)
