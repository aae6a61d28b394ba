#!/usr/bin/env python3
"""Decode the test sets of yes and no and score the transcripts."""

from yesno import YesNo

from asr_core.bin.decode import main

DEFAULTS = {"epoch": 50, "avg": 10, "max_duration": 200.0}

if __name__ == "__main__":
    main(corpus=YesNo, defaults=DEFAULTS)
