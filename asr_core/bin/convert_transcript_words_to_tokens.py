"""Spell a text in tokens: replace each word by its first pronunciation in a lexicon."""

import sys
from dataclasses import dataclass
from typing import Iterator, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class ConvertOptions:
    """Lexicon, text and output."""

    lexicon: str = option("", "lexicon: lines of a word and its tokens")
    transcript: str = option("", "text, one sentence a line, words separated by spaces")
    oov: str = option("<UNK>", "the lexicon's word that stands for words it does not have")
    output: str = option("", "the file to write; by default standard output")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    add_options(parser, ConvertOptions)
    opts = from_params(ConvertOptions, parser.parse_args(argv))
    if not opts.lexicon or not opts.transcript:
        parser.error("--lexicon and --transcript are needed")
    run_program(lambda: _run(opts))


def _run(opts: ConvertOptions) -> None:
    from asr_core.utils.files import atomic_path

    lines = _converted(opts)
    if not opts.output:
        sys.stdout.writelines(lines)
        return
    with atomic_path(opts.output) as tmp, open(tmp, "w", encoding="utf-8") as f:
        f.writelines(lines)


def _converted(opts: ConvertOptions) -> Iterator[str]:
    from asr_core.lm.lexicon import first_pronunciations, read_lexicon
    from asr_core.lm.symbols import text_lines
    from asr_core.utils.errors import UserError

    spelt = {
        word: " ".join(tokens) for word, tokens in first_pronunciations(read_lexicon(opts.lexicon)).items()
    }
    if opts.oov not in spelt:
        raise UserError(
            f"{opts.lexicon} has no {opts.oov}: give --oov, the word that stands for unknown ones"
        )
    unknown = spelt[opts.oov]
    for _, words in text_lines(opts.transcript):
        yield " ".join([spelt.get(word, unknown) for word in words]) + "\n"


if __name__ == "__main__":
    main()
