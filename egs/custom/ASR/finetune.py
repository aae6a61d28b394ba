#!/usr/bin/env python3
"""Adapt a released model to your own recordings: ./finetune.py --finetune-ckpt pretrained.pt --bpe-model its/bpe.model

The model's sizes come from the checkpoint; if it does not tell them (icefall's pretrained.pt), give ``--model-size`` or the
options that its training had. Give the model's own tokenizer, or take over the encoder alone with
``--init-modules encoder_embed,encoder``.
"""

from custom import Custom

from asr_core.bin.finetune import main

DEFAULTS = {
    "exp_dir": "exp_finetune",
    "num_epochs": 10,
    "warmup_batches": 100.0,
    "ref_duration": 60.0,
    "average_period": 50,
    "save_every_n": 500,
    "keep_last_k": 5,
    "valid_interval": 500,
    "max_duration": 100.0,
    "num_buckets": 15,
}

if __name__ == "__main__":
    main(corpus=Custom, defaults=DEFAULTS)
