"""Print the perplexity of an ARPA language model on a text, with and without its unknown words."""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class PerplexityOptions:
    """Model and text."""

    lm: str = option("", "language model in ARPA format, .gz or plain", needed=True, path=PathKind.FILE)
    text: str = option(
        "", "text, one sentence a line, words separated by spaces", needed=True, path=PathKind.FILE
    )


def _run(opts: PerplexityOptions) -> None:
    from asr_core.lm.perplexity import ngram_perplexity_of_files

    print(ngram_perplexity_of_files(opts.lm, opts.text))


main = program(PerplexityOptions, __doc__, _run, log=False)


if __name__ == "__main__":
    main()
