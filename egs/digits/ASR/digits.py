"""Connected digits: synthesised by the recipe itself, or composed from the Free Spoken Digit Dataset."""

import argparse
from typing import Any, Mapping

from asr_core.data.corpus import Corpus

_CORPUS_HELP = "synthesised or recorded digits; fsdd-chain: recorded, for testing language models (run_lm.sh)"


class Digits(Corpus):
    """Utterances of three to seven digits, transcribed in words."""

    name = "digits"
    defaults = {
        "exp_dir": "exp",
        "bpe_model": "data/lang_bpe_34/bpe.model",
        "max_duration": 30.0,
        "num_buckets": 10,
        "num_workers": 0,
    }

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        if params["corpus"] == "fsdd-chain":  # never trained on; its validation set is for choosing weights
            self.test_parts = {"valid": "valid", "test": "test"}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--corpus", choices=("synth", "fsdd", "fsdd-chain"), default="synth", help=_CORPUS_HELP
        )

    @property
    def prefix(self) -> str:
        return self.params["corpus"]
