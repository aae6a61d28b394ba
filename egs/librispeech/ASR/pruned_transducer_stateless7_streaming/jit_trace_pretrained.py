#!/usr/bin/env python3
"""Transcribe audio files chunk by chunk with the three files that jit_trace_export.py wrote."""

from asr_core.bin.jit_trace_pretrained import main

if __name__ == "__main__":
    main()
