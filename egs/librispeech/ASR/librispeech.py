"""LibriSpeech (Panayotov et al. 2015): 960 hours of read English, or the 100 hours of train-clean-100, or mini LibriSpeech."""

import argparse
from typing import Any, Mapping

from asr_core.data.corpus import Corpus
from asr_core.utils.options import str2bool

GIGASPEECH = {  # what finetuning takes by default: subset S of GigaSpeech, and with --use-mux 1 LibriSpeech besides
    "train_cuts": "cuts_S.jsonl.gz",
    "valid_cuts": "gigaspeech=cuts_DEV.jsonl.gz",
    "mux_cuts": "train:688182,librispeech_cuts_train-all-shuf.jsonl.gz:843723",  # by their numbers of cuts, at three speeds
}


class LibriSpeech(Corpus):
    """What prepare.sh made; also what icefall's preparation made, whose manifests have the same names."""

    name = "librispeech"
    defaults = {
        "exp_dir": "zipformer/exp",
        "bpe_model": "data/lang_bpe_500/bpe.model",
        "manifest_dir": "data/fbank",
        "enable_musan": True,
        "min_duration": 1.0,
        "max_utt_duration": 20.0,
    }
    valid_parts = ("dev-clean", "dev-other")
    test_parts = {"test-clean": "test-clean", "test-other": "test-other"}

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        if params.get("mini_libri"):
            self.train_parts = ("train-clean-5",)
            self.valid_parts = ("dev-clean-2",)
            self.test_parts = {"dev-clean-2": "dev-clean-2"}
        else:
            self.train_parts = ("train-all-shuf",) if params.get("full_libri", True) else ("train-clean-100",)

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("LibriSpeech")
        group.add_argument(
            "--full-libri",
            type=str2bool,
            default=True,
            metavar="BOOL",
            help="960 hours; otherwise train-clean-100",
        )
        group.add_argument(
            "--mini-libri", type=str2bool, default=False, metavar="BOOL", help="train-clean-5 and dev-clean-2"
        )
