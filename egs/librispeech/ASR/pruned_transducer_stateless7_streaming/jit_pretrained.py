#!/usr/bin/env python3
"""Transcribe audio files with --nn-model-filename: the cpu_jit.pt that ./pruned_transducer_stateless7_streaming/export.py --jit 1 wrote."""

from asr_core.bin.transcribe import main

if __name__ == "__main__":
    main()
