#!/usr/bin/env python3
"""Train the streaming Zipformer of 2022 with a stateless transducer on LibriSpeech."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.train import main

DEFAULTS = {
    "exp_dir": "pruned_transducer_stateless7_streaming/exp",
    "base_lr": 0.05,
    "lr_batches": 5000.0,
    "save_every_n": 2000,
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS, encoders=("zipformer1",))
