#!/usr/bin/env python3
"""Export the model: pretrained.pt, or with --jit 1 TorchScript, for streaming if it is causal and --chunk-size positive."""

from asr_core.bin.export import main

DEFAULTS = {
    "encoder": "contextnet",
    "exp_dir": "contextnet/exp",
    "epoch": 30,
    "avg": 9,
    "tokens": "data/lang_bpe_1000/tokens.txt",
}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
