"""Print the perplexity of an ARPA language model on a text, with and without its unknown words."""

from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class PerplexityOptions:
    """Model and text."""

    lm: str = option("", "language model in ARPA format, .gz or plain")
    text: str = option("", "text, one sentence a line, words separated by spaces")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    add_options(parser, PerplexityOptions)
    opts = from_params(PerplexityOptions, parser.parse_args(argv))
    if not opts.lm or not opts.text:
        parser.error("--lm and --text are needed")
    run_program(lambda: _run(opts))


def _run(opts: PerplexityOptions) -> None:
    from asr_core.lm.ngram import NgramLm
    from asr_core.lm.perplexity import perplexity
    from asr_core.lm.symbols import text_lines

    print(perplexity(NgramLm.from_arpa(opts.lm), (words for _, words in text_lines(opts.text))))


if __name__ == "__main__":
    main()
