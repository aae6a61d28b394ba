"""Finetuning of a recipe's model: ``main(corpus=Custom)`` is all that its ``finetune.py`` needs."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Type

from asr_core.bin import train
from asr_core.models.options import options_class
from asr_core.training.finetune import DEFAULTS, FinetuneRecipe

if TYPE_CHECKING:
    from asr_core.data.corpus import Corpus


def main(
    corpus: "Type[Corpus]",
    recipe: Type[FinetuneRecipe] = FinetuneRecipe,
    defaults: Optional[Dict[str, Any]] = None,
    argv: Optional[List[str]] = None,
    encoders: Sequence[str] = ("zipformer",),
) -> None:
    """Finetune; arguments and exit status as of :func:`asr_core.bin.train.main`.

    The model's options have no defaults here: what is left out comes from the checkpoint that finetuning starts from.
    """
    names = [
        "sample_rate",
        "num_mel_bins",
        "feature_type",
        *(f.name for name in encoders for f in dataclasses.fields(options_class(name))),
    ]
    known_by_checkpoint = dict.fromkeys(names, argparse.SUPPRESS)
    train.main(corpus, recipe, {**DEFAULTS, **known_by_checkpoint, **(defaults or {})}, argv, encoders)
