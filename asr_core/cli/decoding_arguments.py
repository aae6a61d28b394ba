"""Groups of arguments that several programs about trained models have."""

import argparse
import dataclasses
from typing import Collection, Mapping, Optional, Sequence, Type

from asr_core.data.corpus import Corpus
from asr_core.data.options import DataOptions, FeatureOptions, TestDataOptions
from asr_core.decoding.output.options import RecordOptions, ScoreOptions
from asr_core.encoders.chunk_options import CHUNK_OPTIONS
from asr_core.models.options import options_class
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, params_of, peek

# The form of the features is the checkpoint's unless it is given.
_FEATURES = tuple(f.name for f in dataclasses.fields(FeatureOptions))
_DATA = tuple(f.name for f in dataclasses.fields(TestDataOptions))
# Options of training that icefall's decoding programs have, and published commands, too
_UNUSED_DATA = (
    "num_buckets",
    "concatenate_cuts",
    "duration_factor",
    "gap",
    "shuffle",
    "drop_last",
    "return_cuts",
    "enable_spec_aug",
    "spec_aug_time_warp_factor",
    "enable_musan",
)
# Options of training that published commands describe a model with
_UNUSED_MODEL = (
    "use_cr_ctc",
    "encoder_unmasked_dim",
    "encoder_unmasked_dims",
    "short_chunk_size",
    "dropout",
    "embed_dropout",
    "ff_dropout",
    "attention_dropout",
    "conv_dropout",
    "layer_drop",
    "predictor_noise",
    "joiner_noise",
    "predictor_noise_start",
)


def add_model_options(
    parser: argparse.ArgumentParser,
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[Sequence[str]] = None,
) -> None:
    """Add the model's options without defaults: those left out come from the checkpoint.

    They are those of a Zipformer unless ``--encoder`` is on the command line or among the defaults,
    as it is in a recipe of one encoder. Those of training alone are accepted and not shown. An
    unknown encoder ends the process with one line.
    """
    defaults = defaults or {}
    try:
        cls = options_class(peek(argv, "encoder", str(defaults.get("encoder", "zipformer"))))
    except UserError as e:
        parser.error(str(e))
    of_recipe = {n: value for n, value in defaults.items() if n in ("encoder", *CHUNK_OPTIONS)}
    if peek(argv, "decode-chunk-len", ""):  # the command line wins over a recipe that uses the other kind
        for name in ("chunk_size", "left_context_frames"):
            of_recipe.pop(name, None)
    names = [f.name for f in dataclasses.fields(cls)]
    add_options(parser, cls, {**dict.fromkeys(names, argparse.SUPPRESS), **of_recipe})
    hide_unused(parser, _UNUSED_MODEL)


def add_data_options(parser: argparse.ArgumentParser, defaults: Mapping[str, object]) -> None:
    """Add the data options that decoding uses.

    Those that icefall's programs have besides are accepted and not shown.
    """
    add_options(
        parser,
        DataOptions,
        {**defaults, **dict.fromkeys(_FEATURES, argparse.SUPPRESS)},
        only=(*_DATA, *_UNUSED_DATA),
    )
    hide_unused(parser, _UNUSED_DATA)


def add_result_options(
    parser: argparse.ArgumentParser, defaults: Mapping[str, object], streaming: bool = False
) -> None:
    """Add the options of scoring and of records; n-best lists are for whole utterances only."""
    add_options(parser, ScoreOptions, defaults)
    names = [f.name for f in dataclasses.fields(RecordOptions) if not (streaming and f.name == "write_nbest")]
    add_options(parser, RecordOptions, defaults, only=names)


def parse(parser: Parser, corpus: Type[Corpus], argv: Optional[Sequence[str]]) -> AttributeDict:
    """Parse the command line, with the options that the corpus adds.

    Those that only training uses are accepted and not shown.
    """
    corpus.add_arguments(parser)
    hide_unused(parser, corpus.training_options)
    return params_of(parser.parse_args(argv))


def hide_unused(parser: argparse.ArgumentParser, names: Collection[str]) -> None:
    """Leave options without effect out of ``--help``, and name them at its end."""
    hidden = [action for action in parser._actions if action.dest in names]
    for action in hidden:
        action.help = argparse.SUPPRESS
    flags = ", ".join(action.option_strings[0] for action in hidden)
    if flags:
        start = f"{parser.epilog}, " if parser.epilog else "Accepted, without effect here: "
        parser.epilog = start + flags
