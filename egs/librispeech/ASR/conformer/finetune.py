#!/usr/bin/env python3
"""Finetune a Conformer on other data, by default on subset S of GigaSpeech; the cuts are looked for in --manifest-dir."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import GIGASPEECH, LibriSpeech

from asr_core.bin.finetune import main

if __name__ == "__main__":
    main(
        corpus=LibriSpeech,
        defaults={**GIGASPEECH, "exp_dir": "conformer/exp_finetune"},
        encoders=("conformer",),
    )
