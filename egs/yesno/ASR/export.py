#!/usr/bin/env python3
"""Export the model: pretrained.pt, or with --jit 1 TorchScript."""

from asr_core.bin.export import main

DEFAULTS = {"exp_dir": "exp", "epoch": 50, "avg": 10}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
