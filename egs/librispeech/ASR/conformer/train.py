#!/usr/bin/env python3
"""Train a Conformer with a stateless transducer on LibriSpeech; --model-size chooses another size, --causal 1 lets it stream."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.train import main

DEFAULTS = {"exp_dir": "conformer/exp", "model_size": "icefall"}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS, encoders=("conformer",))
