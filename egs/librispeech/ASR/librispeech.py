"""The corpus, tokens and data for fine-tuning that all recipes on LibriSpeech share."""

import argparse
from dataclasses import dataclass
from typing import Mapping

from asr_core.data.corpus import Corpus
from asr_core.utils.options import add_options, option


@dataclass
class LibriSpeechOptions:
    """LibriSpeech."""

    full_libri: bool = option(True, "960 hours; otherwise train-clean-100")
    mini_libri: bool = option(False, "train-clean-5 and dev-clean-2")


class LibriSpeech(Corpus):
    """960 hours of read English (Panayotov et al., 2015), as prepare.sh or icefall leaves it."""

    name = "librispeech"
    defaults = {
        "manifest_dir": "data/fbank",
        "enable_musan": True,
        "min_duration": 1.0,
        "max_utt_duration": 20.0,
    }
    valid_parts = ("dev-clean", "dev-other")
    test_parts = {"test-clean": "test-clean", "test-other": "test-other"}
    training_options = ("full_libri",)

    def __init__(self, params: Mapping[str, object]) -> None:
        super().__init__(params)
        self.train_parts = ("train-all-shuf",) if params.get("full_libri", True) else ("train-clean-100",)
        if params.get("mini_libri"):
            self.train_parts, self.valid_parts = ("train-clean-5",), ("dev-clean-2",)
            self.test_parts = {"dev-clean-2": "dev-clean-2"}

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        add_options(parser, LibriSpeechOptions)


CORPUS = LibriSpeech
LANG_DIR = "data/lang_bpe_500"
DEFAULTS = {
    # Subset S of GigaSpeech; with --use-mux 1, LibriSpeech besides. The weights of the mixture are
    # the numbers of cuts, at three speeds each.
    "finetune": {
        "bpe_model": f"{LANG_DIR}/bpe.model",
        "train_cuts": "cuts_S.jsonl.gz",
        "valid_cuts": "gigaspeech=cuts_DEV.jsonl.gz",
        "mux_cuts": "train:688182,librispeech_cuts_train-all-shuf.jsonl.gz:843723",
    },
}
