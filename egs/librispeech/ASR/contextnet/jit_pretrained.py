#!/usr/bin/env python3
"""Transcribe audio files with --nn-model-filename: the jit_script.pt that ./contextnet/export.py --jit 1 wrote."""

from asr_core.bin.transcribe import main

if __name__ == "__main__":
    main()
