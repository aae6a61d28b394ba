#!/usr/bin/env python3
"""Decode the test sets of connected digits chunk by chunk, as a live stream would be."""

from digits import Digits

from asr_core.bin.streaming_decode import main

DEFAULTS = {
    "epoch": 4,
    "avg": 1,
    "chunk_size": "16",
    "left_context_frames": "64",
    "max_duration": 200.0,
    "num_decode_streams": 50,
}

if __name__ == "__main__":
    main(corpus=Digits, defaults=DEFAULTS)
