"""Convert an ARPA language model to a grammar in OpenFst text, with #0 on its backoff arcs."""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class ArpaToFstOptions:
    """Model, symbols and output."""

    arpa: str = option("", "language model in ARPA format, .gz or plain")
    symbols: str = option(
        "", "words.txt or tokens.txt with the disambiguation symbol; n-grams with other words are left out"
    )
    output: str = option("", "the text to write, e.g. data/lm/G_3_gram.fst.txt")
    max_order: int = option(0, "leave out longer n-grams; 0: none")
    disambig_symbol: str = option("#0", "the symbol on backoff arcs")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, ArpaToFstOptions)
    opts = from_params(ArpaToFstOptions, parser.parse_args(argv))
    if not opts.arpa or not opts.symbols or not opts.output:
        parser.error("--arpa, --symbols and --output are needed")
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: ArpaToFstOptions) -> None:
    from asr_core.lm.grammar_fst import write_openfst_text
    from asr_core.lm.ngram import NgramLm
    from asr_core.lm.symbols import read_symbols

    symbols = read_symbols(opts.symbols)
    lm = NgramLm.from_arpa(opts.arpa, symbols, opts.max_order)
    states = write_openfst_text(lm, opts.output, symbols, opts.disambig_symbol)
    logging.info("%s: %d states", opts.output, states)


if __name__ == "__main__":
    main()
