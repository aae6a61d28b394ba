#!/usr/bin/env python3
"""Average checkpoints into one file, which the other programs, and finetuning, read."""

from asr_core.bin.generate_averaged_model import main

DEFAULTS = {
    "encoder": "zipformer1",
    "exp_dir": "pruned_transducer_stateless7_streaming/exp",
    "epoch": 30,
    "avg": 9,
}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
