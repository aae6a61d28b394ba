"""Spell a text in tokens: replace each word by its first pronunciation in a lexicon."""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class ConvertOptions:
    """Lexicon, text and output."""

    lexicon: str = option("", "lexicon: lines of a word and its tokens", needed=True, path=PathKind.FILE)
    transcript: str = option(
        "", "text, one sentence a line, words separated by spaces", needed=True, path=PathKind.FILE
    )
    oov: str = option("<UNK>", "the lexicon's word that stands for words it does not have")
    output: str = option("", "the file to write; by default standard output", path=PathKind.OUTPUT)


def _run(opts: ConvertOptions) -> None:
    from asr_core.lm.lexicon import write_spelled_text

    write_spelled_text(opts.lexicon, opts.transcript, opts.output, opts.oov)


main = program(ConvertOptions, __doc__, _run, log=False)


if __name__ == "__main__":
    main()
