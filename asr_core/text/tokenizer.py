"""Text to token ids and back: SentencePiece models, or a plain tokens.txt for decoding."""

from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

BLANK = "<blk>"
SOS_EOS = "<sos/eos>"
UNK = "<unk>"
WORD_START = "\u2581"  # SentencePiece's mark for the space before a word


def read_tokens(path: PathLike) -> Dict[str, int]:
    """Read a ``tokens.txt``: one ``token id`` pair a line, separated by white space.

    Raises:
      UserError: the file is missing, a line is malformed, an id is repeated, or the ids are not 0,
        1, 2, ...
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read tokens file {path}: {e}") from e
    table: Dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.rsplit(maxsplit=1)
        if len(fields) != 2 or not fields[1].isdigit() or fields[0] in table:
            raise UserError(f"{path}:{number}: expected a new 'token id' pair, got {line!r}")
        table[fields[0]] = int(fields[1])
    if sorted(table.values()) != list(range(len(table))):
        raise UserError(f"{path}: token ids must be 0 .. {len(table) - 1}, each once")
    return table


def format_tokens(pieces: Iterable[str]) -> str:
    """Return the text of a ``tokens.txt`` for ``pieces`` in the order of their ids."""
    return "".join(f"{piece} {i}\n" for i, piece in enumerate(pieces))


class WordSpan(NamedTuple):
    """A word and the positions of its first and its last token."""

    word: str
    first: int
    last: int


def _spans(pieces: Iterable[Tuple[int, str]]) -> List[WordSpan]:
    """Return the words that pieces, each with its position, spell.

    Runs of byte pieces such as ``<0xE4>`` are read as UTF-8. ``\u2581`` opens a word, by itself or
    with its first letters.
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


def _texts(pieces: Iterable[Tuple[int, str]]) -> Iterator[Tuple[str, int, int]]:
    """Yield the text of each piece or run of byte pieces, and its first and last position."""
    raw, begin, end = bytearray(), 0, 0
    for position, piece in (*pieces, (0, "")):
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            begin, end = (begin if raw else position), position
            raw.append(int(piece[3:5], 16))
            continue
        if raw:
            yield raw.decode("utf-8", errors="replace"), begin, end
            raw.clear()
        yield piece, position, position


class Tokenizer:
    """Conversion between texts and token ids.

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
        self._silent = {ids[name] for name in (BLANK, SOS_EOS) if name in ids}

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self.pieces)

    @classmethod
    def load(cls, path: PathLike) -> "Tokenizer":
        """Load ``bpe.model`` (SentencePiece), ``tokens.txt`` (only decodes), or a folder of either.

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
            table = read_tokens(path)
            pieces = [t for t in sorted(table, key=table.__getitem__) if not is_disambig(t)]
            return cls(pieces, None, str(path))
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor()
        try:
            processor.load(str(path))
        except (RuntimeError, OSError) as e:
            raise UserError(f"{path} is not a SentencePiece model, or is damaged: {e}") from e
        pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        return cls(pieces, processor, str(path))

    def encode(self, texts: Sequence[str]) -> List[List[int]]:
        """Return the token ids of each text.

        Raises:
          UserError: this tokenizer was read from a tokens.txt, which can only decode.
        """
        if isinstance(texts, str):
            raise TypeError("encode() takes a list of texts")
        return self._encoder().encode(list(texts), out_type=int)

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
            (position, unknown if token == self.unk_id else self.pieces[token])
            for position, token in enumerate(map(int, ids))
            if token not in self._silent
        )

    def unknown_characters(self, text: str) -> str:
        """Return the characters of ``text`` that the tokens cannot spell, each once, in order."""
        if self.unk_id not in self.encode([text])[0]:
            return ""
        pieces: List[str] = self._encoder().encode([text], out_type=str)[0]
        known = set(self.pieces)
        unknown = [ch for piece in pieces if piece not in known for ch in piece if ch != WORD_START]
        return "".join(dict.fromkeys(unknown))


def is_disambig(token: str) -> bool:
    """Return whether ``token`` is one of ``#0``, ``#1``, ..., which only graphs have."""
    return len(token) > 1 and token[0] == "#" and token[1:].isdigit()
