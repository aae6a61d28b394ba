"""Estimate an interpolated modified Kneser-Ney model from a text; write it as an ARPA file."""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class KneserNeyOptions:
    """Estimation: the text, the order, the file to write.

    Each option may also be spelt with a single dash.
    """

    ngram_order: int = option(
        3, "length of the longest n-grams", aliases=("-ngram-order",), at_least=1, at_most=20
    )
    text: str = option(
        "",
        "text, one sentence a line, words separated by spaces; .gz or plain",
        aliases=("-text",),
        needed=True,
        path=PathKind.FILE,
    )
    lm: str = option(
        "",
        "the ARPA file to write; compressed if it ends in .gz",
        aliases=("-lm",),
        needed=True,
        path=PathKind.OUTPUT,
    )


def _run(opts: KneserNeyOptions) -> None:
    from asr_core.lm.kneser_ney import estimate_to_file

    estimate_to_file(opts.text, opts.ngram_order, opts.lm)


main = program(KneserNeyOptions, __doc__, _run)


if __name__ == "__main__":
    main()
