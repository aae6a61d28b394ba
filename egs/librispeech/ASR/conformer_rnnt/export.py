#!/usr/bin/env python3
"""Export the model: pretrained.pt, or with --jit 1 TorchScript, for streaming if it is causal and --chunk-size positive."""

from asr_core.bin.export import main

DEFAULTS = {
    "encoder": "conformer",
    "exp_dir": "conformer_rnnt/exp",
    "epoch": 30,
    "use_ema": True,
    "tokens": "data/lang_bpe_1024/tokens.txt",
}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
