#!/usr/bin/env python3
"""Train ContextNet with an LSTM transducer on LibriSpeech, by the sum over all alignments; --alpha 1 and 2 make it wider."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.train import main

DEFAULTS = {
    "exp_dir": "contextnet/exp",
    "bpe_model": "data/lang_bpe_1000/bpe.model",
    # model
    "alpha": 0.5,
    "predictor": "lstm",
    "predictor_embedding_dim": 640,
    "predictor_layer_norm": True,
    "decoder_dim": 512,
    "joiner_dim": 512,
    "joiner_decoder_bias": False,
    "loss": "full",
    "joiner_noise": 0.075,  # as the predictor's, from batch 20000 on
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
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS, encoders=("contextnet",))
