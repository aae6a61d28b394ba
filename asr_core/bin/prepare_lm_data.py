"""Turn a text into training data of a token language model.

The archive is a dict of flat tensors (asr_core.lm.archive.LmArchive): the tokens of each different
word, the words of each sentence, and each sentence's length in tokens.
"""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class LmDataOptions:
    """Text, tokenizer and output."""

    bpe_model: str = option(
        "", "tokenizer: a SentencePiece model, or a folder with bpe.model", needed=True, path=PathKind.EITHER
    )
    lm_data: str = option("", "text, one sentence a line", needed=True, path=PathKind.FILE)
    lm_archive: str = option(
        "",
        "the archive to write, e.g. data/lm_training_bpe_500/lm_data.pt",
        needed=True,
        path=PathKind.OUTPUT,
    )
    sorted_archive: str = option(
        "",
        "also write the archive with the longest sentences first, e.g. .../sorted_lm_data.pt",
        path=PathKind.OUTPUT,
    )
    statistics: str = option(
        "",
        "also write a file with numbers of sentences, words and tokens, e.g. statistics.txt",
        path=PathKind.OUTPUT,
    )


def _run(opts: LmDataOptions) -> None:
    from asr_core.lm.archive import write_archives

    write_archives(
        opts.lm_data,
        opts.bpe_model,
        opts.lm_archive,
        in_order=opts.sorted_archive,
        statistics=opts.statistics,
    )


main = program(LmDataOptions, __doc__, _run)


if __name__ == "__main__":
    main()
