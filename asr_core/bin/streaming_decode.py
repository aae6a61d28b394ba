"""Decode test sets chunk by chunk, many streams at a time.

A recipe's streaming_decode.py calls :func:`main`.
"""

from typing import Mapping, Optional, Sequence, Type

from asr_core.cli.decoding_arguments import add_data_options, add_model_options, add_result_options, parse
from asr_core.cli.program import run_program
from asr_core.data.corpus import Corpus
from asr_core.decoding.options import StreamingSearchOptions, TestOptions
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.utils.options import Parser, add_options


def main(
    corpus: Type[Corpus],
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[Sequence[str]] = None,
) -> None:
    """Parse the command line and run; arguments as of :func:`asr_core.bin.decode.main`."""
    all_defaults = {"epoch": 28, **corpus.defaults, **(defaults or {})}
    fallback = str(all_defaults.pop("bpe_model", ""))
    parser = Parser((__doc__ or "").split("\n\n")[0])
    for cls in (CheckpointOptions, StreamingSearchOptions, TestOptions):
        add_options(parser, cls, all_defaults)
    add_result_options(parser, all_defaults, streaming=True)
    add_data_options(parser, all_defaults)
    add_model_options(parser, all_defaults, argv)
    params = parse(parser, corpus, argv)

    def body() -> None:
        from asr_core.decoding.run_streaming import streaming_decode

        streaming_decode(corpus, params, fallback)

    run_program(body)
