#!/usr/bin/env python3
"""Decode test-clean and test-other in chunks of --decode-chunk-len feature frames, all at once, and score the transcripts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.decode import main

DEFAULTS = {
    "encoder": "zipformer1",
    "exp_dir": "pruned_transducer_stateless7_streaming/exp",
    "epoch": 30,
    "avg": 9,
    "decode_chunk_len": 32,
}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS)
