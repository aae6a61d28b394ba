#!/usr/bin/env python3
"""Average checkpoints into one file, which the other programs, and finetuning, read."""

from asr_core.bin.generate_averaged_model import main

DEFAULTS = {"encoder": "conformer", "exp_dir": "conformer_rnnt/exp", "epoch": 30, "use_ema": True}

if __name__ == "__main__":
    main(defaults=DEFAULTS)
