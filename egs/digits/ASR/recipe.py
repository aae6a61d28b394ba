"""Small models on connected digits, of each kind of encoder; four epochs take minutes on a CPU."""

import argparse
from typing import Mapping

from asr_core.bin.recipe import load_file
from asr_core.data.corpus import Corpus


class Digits(Corpus):
    """Utterances of three to seven digits, transcribed in words.

    The recipe synthesises them itself, or composes them from the Free Spoken Digit Dataset.
    """

    name = "digits"
    defaults = {"max_duration": 30.0, "num_buckets": 10, "num_workers": 0}

    def __init__(self, params: Mapping[str, object]) -> None:
        super().__init__(params)
        if params["corpus"] == "fsdd-chain":  # never trained on; its validation set is for choosing weights
            self.test_parts = {"valid": "valid", "test": "test"}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        text = "synthesised or recorded digits; fsdd-chain: recorded, for testing language models (run_lm.sh)"
        parser.add_argument("--corpus", choices=("synth", "fsdd", "fsdd-chain"), default="synth", help=text)

    @property
    def prefix(self) -> str:
        return str(self.params["corpus"])


CORPUS = Digits
EXP_DIR = "exp"
LANG_DIR = "data/lang_bpe_34"
MODELS = load_file("configurations.py", beside=__file__).MODELS
_LAST = {"epoch": 4, "avg": 1}
_CHUNK = {"chunk_size": "16", "left_context_frames": "64"}  # 320 ms, with 1.28 s before them
_SHORT = {  # a short training with small batches
    "lr_epochs": 2.0,
    "warm_step": 300,
    "ref_duration": 4.0,
    "average_period": 20,
    "save_every_n": 200,
    "keep_last_k": 3,
    "empty_text": "keep",  # the synthesised cuts without words
    "enable_musan": False,
    "speed_perturb": False,
}
DEFAULTS = {
    "train": {
        **_SHORT,
        "decoder_dim": 128,
        "joiner_dim": 128,
        "num_epochs": 4,
        "base_lr": 0.045,
        "lr_batches": 500.0,
    },
    "finetune": {**_SHORT, "max_duration": 15.0, "num_epochs": 4, "base_lr": 0.02, "warmup_batches": 100.0},
    "decode": {**_LAST, "max_duration": 200.0},
    "streaming_decode": {**_LAST, **_CHUNK, "max_duration": 200.0, "num_decode_streams": 50},
    "export": {**_LAST, **_CHUNK},
    "transcribe": {"model": f"{EXP_DIR}/jit_script_chunk_16_left_64.pt"},
}
