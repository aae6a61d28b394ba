#!/usr/bin/env python3
"""Train a Zipformer transducer, with or without further heads, on LibriSpeech; --model-size chooses a published size."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.train import main

if __name__ == "__main__":
    main(corpus=LibriSpeech)
