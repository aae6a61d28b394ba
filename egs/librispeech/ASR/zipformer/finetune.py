#!/usr/bin/env python3
"""Finetune a Zipformer on other data, validating on LibriSpeech too; by default on subset S of GigaSpeech.

The cuts are looked for in --manifest-dir. --use-mux 1 mixes LibriSpeech in, so that less of it is forgotten. To score what
came out: ./zipformer/decode.py --exp-dir ... --test-cuts dev=cuts_DEV.jsonl.gz,test=cuts_TEST.jsonl.gz
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where librispeech.py is

from librispeech import GIGASPEECH, LibriSpeech

from asr_core.bin.finetune import main

if __name__ == "__main__":
    main(corpus=LibriSpeech, defaults=GIGASPEECH)
