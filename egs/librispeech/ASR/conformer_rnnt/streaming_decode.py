#!/usr/bin/env python3
"""Decode test-clean and test-other chunk by chunk, as live streams would be, with a model trained with --causal 1."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.streaming_decode import main

DEFAULTS = {
    "encoder": "conformer",
    "exp_dir": "conformer_rnnt/exp",
    "bpe_model": "data/lang_bpe_1024/bpe.model",
    "epoch": 28,
    "use_ema": True,  # with it, --avg is 1
    "on_the_fly_feats": True,
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS)
