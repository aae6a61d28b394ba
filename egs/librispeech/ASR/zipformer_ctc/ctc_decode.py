#!/usr/bin/env python3
"""Decode test-clean and test-other with CTC, over a graph or without, and score the transcripts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.ctc_decode import main

DEFAULTS = {"exp_dir": "zipformer_ctc/exp", "epoch": 30, "avg": 15}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS)
