"""Estimate an n-gram language model (interpolated modified Kneser-Ney) from a text; write it as an ARPA file."""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class KneserNeyOptions:
    """Estimation: the text, the order, the file to write.

    Each option may also be spelt with a single dash.
    """

    ngram_order: int = option(3, "length of the longest n-grams", aliases=("-ngram-order",))
    text: str = option(
        "", "text, one sentence a line, words separated by spaces; .gz or plain", aliases=("-text",)
    )
    lm: str = option("", "the ARPA file to write; compressed if it ends in .gz", aliases=("-lm",))


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, KneserNeyOptions)
    opts = from_params(KneserNeyOptions, parser.parse_args(argv))
    if not opts.text or not opts.lm:
        parser.error("--text and --lm are needed")
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: KneserNeyOptions) -> None:
    from asr_core.lm.arpa import write_arpa
    from asr_core.lm.kneser_ney import estimate

    arpa = estimate(opts.text, opts.ngram_order)
    write_arpa(opts.lm, arpa)
    counts = ", ".join(f"{len(words)} {k}-grams" for k, words in enumerate(arpa.words, 1))
    logging.info("%s: %s", opts.lm, counts)


if __name__ == "__main__":
    main()
