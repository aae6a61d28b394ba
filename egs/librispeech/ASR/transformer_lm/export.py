#!/usr/bin/env python3
"""Export a trained transformer language model: weights, or with --jit 1 TorchScript."""

from asr_core.bin.export_lm import main

if __name__ == "__main__":
    main("transformer")
