#!/usr/bin/env python3
"""Decode the test sets of your own recordings and score the transcripts; --chunk-size and --left-context-frames simulate streaming."""

from custom import Custom

from asr_core.bin.decode import main

DEFAULTS = {"epoch": 30, "avg": 9, "max_duration": 200.0}

if __name__ == "__main__":
    main(corpus=Custom, defaults=DEFAULTS)
