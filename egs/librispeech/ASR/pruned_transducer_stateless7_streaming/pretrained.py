#!/usr/bin/env python3
"""Transcribe audio files with --checkpoint: a pretrained.pt, or any other checkpoint."""

from asr_core.bin.transcribe import main

DEFAULTS = {"encoder": "zipformer1", "decode_chunk_len": 32}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
