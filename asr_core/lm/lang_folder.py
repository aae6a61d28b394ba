"""Lang folders: the lexicon, symbol tables and graphs of a set of tokens."""

import logging
from pathlib import Path
from typing import List, Mapping

from asr_core.lm import lexicon as lex
from asr_core.lm.symbols import BOS, DISAMBIG, EOS, EPS, format_symbols, read_symbols, words_table
from asr_core.text.tokenizer import UNK, WORD_START, Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic
from asr_core.utils.paths import PathLike

# Entries of words.txt that have no pieces. The two in the middle stand for sounds in Kaldi's
# lexica.
_NOT_SPOKEN = (EPS, "!SIL", "<SPOKEN_NOISE>", DISAMBIG, BOS, EOS)


def make_phone_lang(lang_dir: PathLike, silence: str = "SIL") -> None:
    """Complete a folder that has the ``lexicon.txt`` of phones.

    Args:
      lang_dir: the folder, where the output goes, too.
      silence: phone of optional silence; "": no silence between words.

    Raises:
      UserError: the lexicon is missing or malformed, or has no such phone.
    """
    folder = Path(lang_dir)
    lexicon = lex.read_lexicon(folder / "lexicon.txt", phones=True)
    if silence and not any(silence in tokens for _, tokens in lexicon):
        raise UserError(f"{folder / 'lexicon.txt'} has no phone {silence}: give --silence, or '' for none")
    disambiguated, highest = lex.add_disambig_symbols(lexicon)
    tokens = lex.phone_table(lexicon, highest)
    words = words_table(word for word, _ in lexicon)
    write_text_atomic(folder / "words.txt", format_symbols(words))
    _write_lexica(folder, lexicon, disambiguated, tokens, _numbered(words), silence)
    logging.info(
        "%s: %d words, %d tokens, disambiguation symbols up to #%d", folder, len(words), len(tokens), highest
    )


def make_bpe_lang(lang_dir: PathLike, oov: str = "<UNK>") -> None:
    """Complete a folder that has ``bpe.model`` and ``words.txt``.

    Args:
      lang_dir: the folder, where the output goes, too.
      oov: the word that stands for unknown ones.

    Raises:
      UserError: a file is missing or malformed, or the words have no such word.
    """
    folder = Path(lang_dir)
    tokenizer = Tokenizer.load(folder / "bpe.model")
    words = read_symbols(folder / "words.txt")
    if oov not in words:
        raise UserError(
            f"{folder / 'words.txt'} has no {oov}: give --oov, the word that stands for unknown ones"
        )
    if tokenizer.blank_id != 0:
        raise UserError(
            f"{folder / 'bpe.model'}: <blk> must be token 0, because label 0 is epsilon in graphs"
        )
    lexicon = _pieces_of(tokenizer, words, oov)
    disambiguated, number = lex.add_disambig_symbols(lexicon, tokenizer.pieces)
    tokens = [*tokenizer.pieces, *lex.disambig_symbols(number, tokenizer.pieces)]
    lex.write_lexicon(folder / "lexicon.txt", lexicon)
    _write_lexica(folder, lexicon, disambiguated, tokens, words, silence="")
    pieces = len(tokenizer.pieces)
    logging.info(
        "%s: %d words in %d pieces, disambiguation symbols up to %s", folder, len(lexicon), pieces, tokens[-1]
    )


def _pieces_of(tokenizer: Tokenizer, words: Mapping[str, int], oov: str) -> lex.Lexicon:
    """Return the spoken words in the order of their ids, each with its pieces; ``oov`` is last."""
    spoken = [word for word in sorted(words, key=words.__getitem__) if word not in (*_NOT_SPOKEN, oov)]
    pieces = tokenizer.pieces
    lexicon = [
        (word, [pieces[i] for i in ids or [tokenizer.unk_id]])
        for word, ids in zip(spoken, tokenizer.encode(spoken))
    ]
    lexicon.append((oov, [piece for piece in (WORD_START, UNK) if piece in pieces]))
    return lexicon


def _write_lexica(
    folder: Path,
    lexicon: lex.Lexicon,
    disambiguated: lex.Lexicon,
    tokens: List[str],
    words: Mapping[str, int],
    silence: str,
) -> None:
    """Write ``lexicon_disambig.txt``, ``tokens.txt`` and the graphs of both lexica."""
    lex.write_lexicon(folder / "lexicon_disambig.txt", disambiguated)
    write_text_atomic(folder / "tokens.txt", format_symbols(tokens))
    lex.write_graphs(folder, lexicon, disambiguated, _numbered(tokens), words, silence=silence)
    lex.write_k2_graphs(folder)


def _numbered(symbols: List[str]) -> Mapping[str, int]:
    return {symbol: i for i, symbol in enumerate(symbols)}
