#!/usr/bin/env python3
"""Train a streaming Zipformer transducer on your own recordings.

The defaults suit some hours of speech on one machine; for hundreds of hours give the sizes of a larger model
(``--help`` lists them), a larger ``--max-duration`` and ``--lr-batches 7500 --warm-step 2000``.
"""

from custom import Custom

from asr_core.bin.train import main

DEFAULTS = {
    # model
    "num_encoder_layers": "2,2,2,2",
    "downsampling_factor": "1,2,4,2",
    "encoder_dim": "128,192,256,192",
    "encoder_unmasked_dim": "96,128,192,128",
    "feedforward_dim": "384,512,768,512",
    "num_heads": "4",
    "cnn_module_kernel": "31,31,15,31",
    "decoder_dim": 256,
    "joiner_dim": 256,
    "causal": True,
    # training
    "num_epochs": 30,
    "lr_batches": 2500.0,
    "warm_step": 800,
    "ref_duration": 60.0,
    "average_period": 50,
    "save_every_n": 500,
    "tail_silence_prob": 0.5,
    "keep_last_k": 5,
    "valid_interval": 1000,
    # data
    "max_duration": 100.0,
    "num_buckets": 15,
}

if __name__ == "__main__":
    main(corpus=Custom, defaults=DEFAULTS)
