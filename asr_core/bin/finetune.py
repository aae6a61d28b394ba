"""Fine-tune a recognizer of a recipe."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence, Type

from asr_core.bin.train import parse
from asr_core.cli.program import run_program
from asr_core.models.options import options_class
from asr_core.training.distributed.launch import RankInfo, launch
from asr_core.training.finetune_options import DEFAULTS, FEATURE_OPTIONS, FinetuneOptions
from asr_core.utils.options import AttributeDict

if TYPE_CHECKING:
    from asr_core.data.corpus import Corpus
    from asr_core.training.finetune import FinetuneRecipe


def main(
    corpus: "Type[Corpus]",
    recipe: "Optional[Type[FinetuneRecipe]]" = None,
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[List[str]] = None,
    encoders: Sequence[str] = ("zipformer",),
) -> None:
    """Fine-tune; arguments and exit status as of :func:`asr_core.bin.train.main`.

    The model's options have no defaults here: what is left out comes from the checkpoint that
    fine-tuning starts from.
    """
    by_checkpoint = [f.name for name in encoders for f in dataclasses.fields(options_class(name))]
    merged: Dict[str, object] = {
        **DEFAULTS,
        **dict.fromkeys((*FEATURE_OPTIONS, *by_checkpoint), argparse.SUPPRESS),
        **(defaults or {}),
    }

    def body() -> None:
        params = parse(
            corpus, recipe, merged, argv, encoders, action="Fine-tune", more_options=[FinetuneOptions]
        )
        sys.exit(launch(_finetune, (corpus, recipe), params))

    run_program(body)


def _finetune(
    rank: RankInfo,
    params: AttributeDict,
    corpus: "Type[Corpus]",
    recipe: "Optional[Type[FinetuneRecipe]]",
) -> int:
    from asr_core.training.start import finetune

    return finetune(rank, params, corpus, recipe)
