"""Make a phone lang folder from its lexicon.txt.

Writes lexicon_disambig.txt, tokens.txt, words.txt, and L.fst.txt and L_disambig.fst.txt in OpenFst text, with optional silence of
probability 0.5 at the start and after each word. The graph objects L.pt and L_disambig.pt are written only where k2 is installed.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class LangOptions:
    """Lang folder with a phone lexicon."""

    lang_dir: str = option(
        "",
        "folder with lexicon.txt (lines of a word and its phones); the output goes there, e.g. data/lang_phone",
    )
    silence: str = option("SIL", "the phone of optional silence; '' for no silence between words")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, LangOptions)
    opts = from_params(LangOptions, parser.parse_args(argv))
    if not opts.lang_dir:
        parser.error("--lang-dir is needed")
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: LangOptions) -> None:
    from asr_core.lm import lexicon as lex
    from asr_core.lm.symbols import format_symbols, words_table
    from asr_core.utils.errors import UserError
    from asr_core.utils.files import write_text_atomic

    folder = Path(opts.lang_dir)
    lexicon = lex.read_lexicon(folder / "lexicon.txt")
    if opts.silence and not any(opts.silence in tokens for _, tokens in lexicon):
        raise UserError(
            f"{folder / 'lexicon.txt'} has no phone {opts.silence}: give --silence, or '' for none"
        )
    disambiguated, highest = lex.add_disambig_symbols(lexicon)
    tokens, words = lex.phone_table(lexicon, highest), words_table(word for word, _ in lexicon)
    lex.write_lexicon(folder / "lexicon_disambig.txt", disambiguated)
    write_text_atomic(folder / "tokens.txt", format_symbols(tokens))
    write_text_atomic(folder / "words.txt", format_symbols(words))
    tables = [{symbol: i for i, symbol in enumerate(table)} for table in (tokens, words)]
    lex.write_graphs(folder, lexicon, disambiguated, *tables, silence=opts.silence)
    lex.write_k2_graphs(folder)
    logging.info(
        "%s: %d words, %d tokens, disambiguation symbols up to #%d", folder, len(words), len(tokens), highest
    )


if __name__ == "__main__":
    main()
