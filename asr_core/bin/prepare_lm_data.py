"""Turn a text into training data of a token language model.

The archive is a dict of flat tensors (asr_core.lm.archive.LmArchive): the tokens of each different word, the words of each sentence,
and each sentence's length in tokens.
"""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class LmDataOptions:
    """Text, tokenizer and what is written."""

    bpe_model: str = option("", "tokenizer: a SentencePiece model, or a folder with bpe.model")
    lm_data: str = option("", "text, one sentence a line")
    lm_archive: str = option("", "the archive to write, e.g. data/lm_training_bpe_500/lm_data.pt")
    sorted_archive: str = option(
        "", "also write the archive with the longest sentences first, e.g. .../sorted_lm_data.pt"
    )
    statistics: str = option(
        "", "also write a file with numbers of sentences, words and tokens, e.g. statistics.txt"
    )


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, LmDataOptions)
    opts = from_params(LmDataOptions, parser.parse_args(argv))
    if not opts.bpe_model or not opts.lm_data or not opts.lm_archive:
        parser.error("--bpe-model, --lm-data and --lm-archive are needed")
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: LmDataOptions) -> None:
    from asr_core.lm.archive import build_archive
    from asr_core.text.tokenizer import Tokenizer
    from asr_core.utils.files import write_text_atomic

    archive = build_archive(opts.lm_data, Tokenizer.load(opts.bpe_model))
    archive.save(opts.lm_archive)
    if opts.sorted_archive:
        archive.sort().save(opts.sorted_archive)
    if opts.statistics:
        write_text_atomic(opts.statistics, archive.statistics())
    logging.info("%s: %s", opts.lm_archive, archive.statistics().replace("\n", "; "))


if __name__ == "__main__":
    main()
