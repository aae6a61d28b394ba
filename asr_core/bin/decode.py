"""Decode test sets with a trained model and score the transcripts.

A recipe's decode.py calls :func:`main`.
"""

from typing import Callable, Mapping, Optional, Sequence, Type

from asr_core.cli.decoding_arguments import add_data_options, add_model_options, add_result_options, parse
from asr_core.cli.program import run_program
from asr_core.data.corpus import Corpus
from asr_core.decoding.options import SEARCH_GROUPS, EncoderOptions, TestOptions, WindowOptions
from asr_core.lm.options import LmOptions
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.utils.options import Parser, add_options


def main(
    corpus: Type[Corpus],
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[Sequence[str]] = None,
    more_options: Callable[[Parser], None] = lambda parser: None,
) -> None:
    """Parse the command line and run.

    Args:
      corpus: the recipe's corpus class.
      defaults: defaults of the recipe's options, by name; they take precedence over the corpus's.
      argv: the command line, by default this process'.
      more_options: adds options to the parser that the program has besides.
    """
    all_defaults = {**corpus.defaults, **(defaults or {})}
    fallback = str(all_defaults.pop("bpe_model", ""))
    parser = Parser((__doc__ or "").split("\n\n")[0])
    for cls in (CheckpointOptions, *SEARCH_GROUPS, LmOptions, WindowOptions, EncoderOptions, TestOptions):
        add_options(parser, cls, all_defaults)
    add_result_options(parser, all_defaults)
    add_data_options(parser, all_defaults)
    add_model_options(parser, all_defaults, argv)
    more_options(parser)
    params = parse(parser, corpus, argv)

    def body() -> None:
        from asr_core.decoding.run_offline import decode

        decode(corpus, params, fallback, all_defaults)

    run_program(body)
