#!/usr/bin/env python3
"""Transcribe audio files; without --model, with what ./pruned_transducer_stateless7_streaming/export.py --jit 1 wrote."""

from asr_core.bin.transcribe import main

DEFAULTS = {"model": "pruned_transducer_stateless7_streaming/exp/cpu_jit.pt"}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
