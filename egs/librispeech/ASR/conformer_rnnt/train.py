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
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS, models=MODELS)
