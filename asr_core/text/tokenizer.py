"""Text to token ids and back: SentencePiece models, or a plain tokens.txt for decoding."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

BLANK = "<blk>"
SOS_EOS = "<sos/eos>"
UNK = "<unk>"
WORD_START = "\u2581"  # SentencePiece's mark for the space before a word
_SYMBOL_LINE = re.compile(r"[ \t]*([^ \t].*?)[ \t]+([0-9]{1,18})[ \t\r]*", re.DOTALL)
_BYTE_PIECES = {f"<0x{byte:02X}>": byte for byte in range(256)}  # of a model that falls back to bytes


def read_tokens(path: PathLike) -> Dict[str, int]:
    """Read a ``tokens.txt``: one ``token id`` pair a line, separated by a space or a tab.

    Raises:
      UserError: the file is missing, a line is malformed, an id is repeated, or the ids are not 0,
        1, 2, ...
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read tokens file {path}: {e}") from e
    return parse_tokens(text, str(path))


def parse_tokens(text: str, name: str) -> Dict[str, int]:
    """Return the tokens and ids in the text of a ``tokens.txt``.

    Args:
      text: what :func:`format_tokens` returns.
      name: the file, for messages.

    Raises:
      UserError: see :func:`read_tokens`.
    """
    table: Dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        pair = symbol_and_id(line)
        if pair is None or pair[0] in table:
            raise UserError(f"{name}:{number}: expected a new 'token id' pair, got {line!r}")
        table[pair[0]] = pair[1]
    if sorted(table.values()) != list(range(len(table))):
        raise UserError(f"{name}: token ids must be 0 .. {len(table) - 1}, each once")
    return table


def symbol_and_id(line: str) -> Optional[Tuple[str, int]]:
    """Return the symbol and the id on a line of a symbol table; None if it has none.

    Only spaces and tabs separate them, because a symbol may be any other white space, e.g. U+00A0.
    """
    match = _SYMBOL_LINE.fullmatch(line)
    return (match[1], int(match[2])) if match else None


def single_spaced(text: str) -> str:
    """Return a text with each run of white space as one space; a byte order mark counts as such."""
    return " ".join(text.replace("\ufeff", " ").split())


def format_tokens(pieces: Iterable[str]) -> str:
    """Return the text of a ``tokens.txt`` for ``pieces`` in the order of their ids."""
    return "".join(f"{piece} {i}\n" for i, piece in enumerate(pieces))


class WordSpan(NamedTuple):
    """A word and the positions of its first and its last token."""

    word: str
    first: int
    last: int


def _spans(pieces: Iterable[Tuple[int, str, int]]) -> List[WordSpan]:
    """Return the words that pieces spell, each given with its position and its byte or -1.

    Runs of bytes are read as UTF-8. ``\u2581`` opens a word, by itself or with its first letters.
    """
    words: List[WordSpan] = []
    letters, first, last, opening = "", 0, 0, -1
    for text, begin, end in _texts(pieces):
        opening = begin if text == WORD_START else opening
        for ch in text.replace(WORD_START, " "):
            if ch.isspace():
                words += [WordSpan(letters, first, last)] if letters else []
                letters = ""
                continue
            if not letters:
                first = opening if opening >= 0 else begin
            letters, last, opening = letters + ch, end, -1
    return words + ([WordSpan(letters, first, last)] if letters else [])


def _texts(pieces: Iterable[Tuple[int, str, int]]) -> Iterator[Tuple[str, int, int]]:
    """Yield the text of each piece or run of byte pieces, and its first and last position."""
    raw, begin, end = bytearray(), 0, 0
    for position, piece, byte in (*pieces, (0, "", -1)):
        if byte >= 0:
            begin, end = (begin if raw else position), position
            raw.append(byte)
            continue
        if raw:
            yield raw.decode("utf-8", errors="replace"), begin, end
            raw.clear()
        yield piece, position, position


class Tokenizer:
    """Conversion between texts and token ids.

    Any white space in a text stands for one space. The word ``<unk>`` in a text is the token
    ``<unk>``. Other special symbols, ``<blk>`` and ``<sos/eos>``, and SentencePiece's mark of
    spaces cannot be spelled: they give ``<unk>``, never a blank, and training refuses such texts.

    Attributes:
      pieces: the tokens by id.
      blank_id: id of ``<blk>``.
      unk_id: id of ``<unk>``, which stands for everything that the tokens cannot spell.
      path: the file it was loaded from.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        processor: "Optional[SentencePieceProcessor]" = None,
        path: str = "",
    ) -> None:
        self.pieces: List[str] = list(pieces)
        self.path = path
        self._processor = processor
        ids = {piece: i for i, piece in enumerate(self.pieces)}
        if BLANK not in ids:
            raise UserError(f"{path or 'tokens'}: no {BLANK} among the tokens")
        self.blank_id = ids[BLANK]
        self.unk_id = ids.get(UNK, self.blank_id)
        silent = [name for name in (BLANK, SOS_EOS) if name in ids]
        self._silent = {ids[name] for name in silent}
        self._reserved = re.compile("|".join(map(re.escape, (*silent, WORD_START))))
        # a text may have taught a model the single piece "<0x41>": only all 256 of them are bytes
        falls_back = _BYTE_PIECES.keys() <= ids.keys()
        self._byte_of = {ids[piece]: b for piece, b in _BYTE_PIECES.items()} if falls_back else {}

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.pieces)

    @classmethod
    def load(cls, path: PathLike, size: int = 0) -> "Tokenizer":
        """Load ``bpe.model`` (SentencePiece), ``tokens.txt`` (only decodes), or a folder of either.

        Args:
          path: the file or folder.
          size: number of tokens of the model that it belongs to, if it is known; it tells apart a
            last token "#0" and a disambiguation symbol in a tokens.txt.

        Raises:
          UserError: there is no such file, or it is damaged.
        """
        path = Path(path)
        if path.is_dir():
            found = [path / name for name in ("bpe.model", "tokens.txt") if (path / name).is_file()]
            if not found:
                raise UserError(f"no bpe.model or tokens.txt in {path}")
            path = found[0]
        if not path.is_file():
            raise UserError(f"no such tokenizer: {path}; the recipe's prepare.sh makes it in stage 5")
        if path.suffix == ".txt":
            return cls(read_pieces(path, size), None, str(path))
        processor = _read_model(path)
        return cls(_pieces_of(processor), processor, str(path))

    def encode(self, texts: Sequence[str]) -> List[List[int]]:
        """Return the token ids of each text.

        Raises:
          UserError: this tokenizer was read from a tokens.txt, which can only decode.
        """
        if isinstance(texts, str):
            raise TypeError("encode() takes a list of texts")
        plain = [single_spaced(text) for text in texts]
        out: List[List[int]] = self._encoder().encode(plain, out_type=int)
        for i, text in enumerate(plain):
            if UNK in text or self._reserved.search(text):
                out[i] = self._encode_symbols(text)
        return out

    def _encode_symbols(self, text: str) -> List[int]:
        """Return the ids of a text with special symbols, which become ``<unk>``."""
        ids: List[int] = []
        for part in _around_unknown(text):
            for number, stretch in enumerate(self._reserved.split(part)):
                ids += [self.unk_id] * (number > 0)
                ids += self._encoder().encode(stretch, out_type=int)
            ids.append(self.unk_id)
        return ids[:-1]

    def _encoder(self) -> "SentencePieceProcessor":
        if self._processor is None:
            raise UserError(f"{self.path} has no model to split text into tokens; give a bpe.model")
        return self._processor

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ``ids``; ``<blk>`` and ``<sos/eos>`` are left out."""
        return " ".join(span.word for span in self.word_spans(ids))

    def word_spans(self, ids: Sequence[int]) -> List[WordSpan]:
        """Return the words of :meth:`decode` and the tokens of each, as positions in ``ids``."""
        unknown = f"{WORD_START}{UNK}{WORD_START}"
        return _spans(
            (position, unknown if token == self.unk_id else self.pieces[token], self._byte_of.get(token, -1))
            for position, token in enumerate(map(int, ids))
            if token not in self._silent
        )

    def unknown_characters(self, text: str) -> str:
        """Return the characters of ``text`` that the tokens cannot spell, each once, in order."""
        found: Dict[str, None] = {}
        known = set(self.pieces)
        for part in _around_unknown(single_spaced(text)):
            if self.unk_id in self.encode([part])[0]:
                spelt: List[str] = self._encoder().encode(self._reserved.sub(" ", part), out_type=str)
                found.update((ch, None) for piece in spelt if piece not in known for ch in piece)
        found.pop(WORD_START, None)
        return "".join(found)

    def reserved_symbols(self, text: str) -> List[str]:
        """Return the symbols in ``text`` that no text may have, each once, e.g. ``<blk>``."""
        return list(dict.fromkeys(self._reserved.findall(text)))


def _around_unknown(text: str) -> List[str]:
    """Split a text of single spaces at its words ``<unk>``."""
    parts: List[List[str]] = [[]]
    for word in text.split(" "):
        if word == UNK:
            parts.append([])
        else:
            parts[-1].append(word)
    return [" ".join(words) for words in parts]


def _read_model(path: Path) -> "SentencePieceProcessor":
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.load(str(path))
    except (RuntimeError, OSError) as e:
        raise UserError(f"{path} is not a SentencePiece model, or is damaged: {e}") from e
    return processor


def _pieces_of(processor: "SentencePieceProcessor") -> List[str]:
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def read_pieces(path: PathLike, size: int = 0) -> List[str]:
    """Read the tokens of a ``tokens.txt``, without the disambiguation symbols at its end.

    A run ``#0 #1 ...`` at the end may be tokens, too, of a text with such words: then ``size``, or
    the bpe.model beside the file, says how many tokens there are.

    Args:
      path: the file.
      size: the number of tokens, if it is known.

    Raises:
      UserError: see :func:`read_tokens`.
    """
    table = read_tokens(path)
    symbols = sorted(table, key=table.__getitem__)
    end = first_disambig(symbols)
    if end == len(symbols):
        return symbols
    beside = Path(path).parent / "bpe.model"
    if not end < size <= len(symbols) and beside.is_file():
        size = _read_model(beside).get_piece_size()
    return symbols[: size if end < size <= len(symbols) else end]


def first_disambig(symbols: Sequence[str]) -> int:
    """Return where the disambiguation symbols at the end of a table begin: ``#0 #1 ...``.

    Their numbers rise, not necessarily by one: a lang folder leaves out those that are tokens.

    Args:
      symbols: the symbols in the order of their ids.
    """
    following = sys.maxsize
    for place in range(len(symbols) - 1, -1, -1):
        if not is_disambig(symbols[place]) or int(symbols[place][1:]) >= following:
            break
        following = int(symbols[place][1:])
        if following == 0:
            return place
    return len(symbols)


def is_disambig(token: str) -> bool:
    """Return whether ``token`` has the form of ``#0``, ``#1``, ..., the symbols of graphs."""
    return re.fullmatch("#(0|[1-9][0-9]{0,8})", token) is not None
