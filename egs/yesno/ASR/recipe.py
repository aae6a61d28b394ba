"""A small Zipformer transducer on waves_yesno; trains in a few minutes on a CPU."""

from dataclasses import dataclass

from asr_core.data.corpus import Corpus
from asr_core.utils.options import option


class YesNo(Corpus):
    """waves_yesno (OpenSLR 1): sixty recordings of eight Hebrew words each, yes or no."""

    name = "yesno"
    defaults = {
        "max_duration": 30.0,
        "bucketing_sampler": False,
        "drop_last": False,
        "num_workers": 0,
    }


@dataclass
class CtcFirstOptions:
    """CTC first: the weight of the CTC loss falls from --ctc-start-scale to --ctc-loss-scale."""

    ctc_start_scale: float = option(1.0, "weight of the CTC loss in the first batch", at_least=0)
    ctc_decay_batches: int = option(
        600, "batches in which the weight falls to --ctc-loss-scale; 0: it is constant", at_least=0
    )


CORPUS = YesNo
RECIPE = "ctc_first.py:CtcFirst"
OPTIONS = (CtcFirstOptions,)
EXP_DIR = "exp"
LANG_DIR = "data/lang_bpe_9"
_EPOCHS = {"epoch": 50, "avg": 10}
DEFAULTS = {
    "train": {
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
        "use_ctc": True,  # a transducer alone hardly leaves its plateau on so little data
        # a few minutes of audio: many epochs of few batches
        "num_epochs": 50,
        "base_lr": 0.045,
        "lr_batches": 300.0,
        "lr_epochs": 30.0,
        "warmup_batches": 100.0,
        "warm_step": 150,
        "ref_duration": 1.0,
        "max_duration": 15.0,
        "enable_spec_aug": False,  # with it, the model is slow to learn the difference between the words
        "average_period": 10,
        "save_every_n": 200,
        "keep_last_k": 2,
        "log_interval": 10,
        "reset_interval": 20,
        "valid_wer_interval": 5,  # epochs take seconds, and so does this
    },
    "decode": {**_EPOCHS, "max_duration": 200.0},
    "export": _EPOCHS,
}
