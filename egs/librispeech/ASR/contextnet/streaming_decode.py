#!/usr/bin/env python3
"""Decode test-clean and test-other chunk by chunk, as live streams would be, with a model trained with --causal 1."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.streaming_decode import main

DEFAULTS = {
    "encoder": "contextnet",
    "exp_dir": "contextnet/exp",
    "bpe_model": "data/lang_bpe_1000/bpe.model",
    "epoch": 28,
    "avg": 15,
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS)
