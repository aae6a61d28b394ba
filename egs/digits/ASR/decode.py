#!/usr/bin/env python3
"""Decode the test sets of connected digits and score the transcripts; --chunk-size and --left-context-frames simulate streaming."""

from digits import Digits

from asr_core.bin.decode import main

DEFAULTS = {"epoch": 4, "avg": 1, "max_duration": 200.0}

if __name__ == "__main__":
    main(corpus=Digits, defaults=DEFAULTS)
