#!/usr/bin/env python3
"""Transcribe audio files; without --model, with what ./conformer_rnnt/export.py --jit 1 wrote."""

from asr_core.bin.transcribe import main

DEFAULTS = {"model": "conformer_rnnt/exp/jit_script.pt"}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
