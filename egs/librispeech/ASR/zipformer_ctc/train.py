#!/usr/bin/env python3
"""Train a Zipformer with CTC on LibriSpeech, if wanted on two views (--use-cr-ctc 1) or with an attention decoder besides."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import LibriSpeech

from asr_core.bin.train import main

DEFAULTS = {"exp_dir": "zipformer_ctc/exp", "use_transducer": False, "use_ctc": True}

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=DEFAULTS)
