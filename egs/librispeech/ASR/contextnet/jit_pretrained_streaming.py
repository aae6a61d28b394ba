#!/usr/bin/env python3
"""Transcribe audio files chunk by chunk with --nn-model-filename: a jit_script_chunk_<C>_left_<L>.pt of export.py."""

from asr_core.bin.transcribe import main

if __name__ == "__main__":
    main()
