#!/usr/bin/env python3
"""Decode the test sets of your own recordings chunk by chunk, as a live stream would be."""

from custom import Custom

from asr_core.bin.streaming_decode import main

DEFAULTS = {
    "epoch": 30,
    "avg": 9,
    "chunk_size": "16",
    "left_context_frames": "128",
    "max_duration": 200.0,
    "num_decode_streams": 50,
}

if __name__ == "__main__":
    main(corpus=Custom, defaults=DEFAULTS)
