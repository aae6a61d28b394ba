#!/usr/bin/env python3
"""Transcribe audio files; without --model, with what ./export.py --jit 1 wrote."""

from asr_core.bin.transcribe import main

if __name__ == "__main__":
    main(defaults={"model": "exp/jit_script_chunk_16_left_64.pt"})
