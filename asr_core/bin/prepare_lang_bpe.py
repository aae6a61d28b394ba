"""Make the lexicon and graphs of a lang folder with bpe.model and words.txt.

Writes lexicon.txt, lexicon_disambig.txt, tokens.txt with the disambiguation symbols #0, #1, ... after the last piece, and L.fst.txt
and L_disambig.fst.txt in OpenFst text, without silence. The graph objects L.pt and L_disambig.pt are written only where k2 is installed.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option

_NOT_SPOKEN = ("<eps>", "!SIL", "<SPOKEN_NOISE>", "#0", "<s>", "</s>")


@dataclass
class LangBpeOptions:
    """Lang folder with a lexicon of pieces."""

    lang_dir: str = option(
        "", "folder with bpe.model and words.txt; the output goes there, e.g. data/lang_bpe_500"
    )
    oov: str = option("<UNK>", "the word that stands for unknown ones; its pieces are \u2581 <unk>")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, LangBpeOptions)
    opts = from_params(LangBpeOptions, parser.parse_args(argv))
    if not opts.lang_dir:
        parser.error("--lang-dir is needed")
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: LangBpeOptions) -> None:
    from asr_core.lm import lexicon as lex
    from asr_core.lm.symbols import format_symbols, read_symbols
    from asr_core.text.tokenizer import UNK, WORD_START, Tokenizer
    from asr_core.utils.errors import UserError
    from asr_core.utils.files import write_text_atomic

    folder = Path(opts.lang_dir)
    tokenizer = Tokenizer.load(folder / "bpe.model")
    words = read_symbols(folder / "words.txt")
    if opts.oov not in words:
        raise UserError(
            f"{folder / 'words.txt'} has no {opts.oov}: give --oov, the word that stands for unknown ones"
        )
    if tokenizer.blank_id != 0:
        raise UserError(
            f"{folder / 'bpe.model'}: <blk> must be token 0, as graphs need that number for nothing"
        )
    spoken = [word for word in sorted(words, key=words.__getitem__) if word not in (*_NOT_SPOKEN, opts.oov)]
    pieces = tokenizer.pieces
    lexicon = [(word, [pieces[i] for i in ids]) for word, ids in zip(spoken, tokenizer.encode(spoken))]
    lexicon.append((opts.oov, [piece for piece in (WORD_START, UNK) if piece in pieces]))
    disambiguated, highest = lex.add_disambig_symbols(lexicon)
    symbols = [*pieces, *lex.disambig_symbols(highest)]
    lex.write_lexicon(folder / "lexicon.txt", lexicon)
    lex.write_lexicon(folder / "lexicon_disambig.txt", disambiguated)
    write_text_atomic(folder / "tokens.txt", format_symbols(symbols))
    lex.write_graphs(folder, lexicon, disambiguated, {symbol: i for i, symbol in enumerate(symbols)}, words)
    lex.write_k2_graphs(folder)
    logging.info(
        "%s: %d words in %d pieces, disambiguation symbols up to #%d",
        folder,
        len(lexicon),
        len(pieces),
        highest,
    )


if __name__ == "__main__":
    main()
