"""Convert an ARPA language model to a grammar in OpenFst text, with #0 on its back-off arcs."""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class ArpaToFstOptions:
    """Model, symbols and output."""

    arpa: str = option("", "language model in ARPA format, .gz or plain", needed=True, path=PathKind.FILE)
    symbols: str = option(
        "",
        "words.txt or tokens.txt with the disambiguation symbol; n-grams with other words are left out",
        needed=True,
        path=PathKind.FILE,
    )
    output: str = option(
        "", "the text to write, e.g. data/lm/G_3_gram.fst.txt", needed=True, path=PathKind.OUTPUT
    )
    max_order: int = option(0, "leave out longer n-grams; 0: none", at_least=0)
    disambig_symbol: str = option("#0", "the symbol on back-off arcs")


def _run(opts: ArpaToFstOptions) -> None:
    from asr_core.lm.grammar_fst import convert_arpa

    convert_arpa(opts.arpa, opts.symbols, opts.output, opts.max_order, opts.disambig_symbol)


main = program(ArpaToFstOptions, __doc__, _run)


if __name__ == "__main__":
    main()
