#!/usr/bin/env python3
"""Export the model: pretrained.pt, or with --jit 1 TorchScript, for streaming unless --chunk-size is -1."""

from asr_core.bin.export import main

DEFAULTS = {"exp_dir": "exp", "epoch": 30, "avg": 9, "chunk_size": "16", "left_context_frames": "128"}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
