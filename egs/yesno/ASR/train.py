#!/usr/bin/env python3
"""Train a small Zipformer transducer on yes and no; a few minutes on a CPU."""

from yesno import YesNo

from asr_core.bin.train import main

DEFAULTS = {
    # model
    "num_encoder_layers": "1,1,1",
    "downsampling_factor": "1,2,4",
    "encoder_dim": "64,96,96",
    "encoder_unmasked_dim": "48,64,64",
    "feedforward_dim": "128",
    "num_heads": "4",
    "cnn_module_kernel": "31,15,15",
    "decoder_dim": 64,
    "joiner_dim": 64,
    "use_ctc": True,  # without it so little data hardly leaves the plateau on which all words sound alike
    # a few minutes of audio: many epochs of few batches
    "num_epochs": 50,
    "base_lr": 0.045,
    "lr_batches": 300.0,
    "lr_epochs": 30.0,
    "warmup_batches": 100.0,
    "warm_step": 150,
    "ref_duration": 1.0,
    "max_duration": 15.0,
    "enable_spec_aug": False,  # with it, two words of one speaker are not told apart for a long time
    "average_period": 10,
    "save_every_n": 200,
    "keep_last_k": 2,
    "log_interval": 10,
    "reset_interval": 20,
    "valid_wer_interval": 5,  # epochs take seconds, and so does this
}

if __name__ == "__main__":
    main(corpus=YesNo, defaults=DEFAULTS)
