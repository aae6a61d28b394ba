"""Symbol tables of language models and graphs: ``words.txt`` and ``tokens.txt``."""

from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Tuple

from asr_core.text.tokenizer import symbol_and_id
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

EPS = "<eps>"
BOS = "<s>"
EOS = "</s>"
UNKNOWN = ("<unk>", "<UNK>")  # names of unknown words in language models
DISAMBIG = "#0"  # the symbol on back-off arcs of a grammar


def read_symbols(path: PathLike) -> Dict[str, int]:
    """Read a symbol table: one ``symbol id`` pair a line; ids need not be dense.

    Raises:
      UserError: the file is missing, a line is malformed, or a symbol or an id is repeated.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the symbol table {path}: {e}") from e
    table: Dict[str, int] = {}
    ids = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        symbol, i = symbol_and_id(line) or ("", 0)
        if not symbol or " " in symbol or "\t" in symbol or symbol in table or i in ids:
            raise UserError(f"{path}:{number}: expected a new 'symbol id' pair, got {line!r}")
        table[symbol] = i
        ids.add(i)
    return table


def format_symbols(symbols: Iterable[str]) -> str:
    """Return the text of a symbol table for ``symbols`` in the order of their ids, from 0."""
    return "".join(f"{symbol} {i}\n" for i, symbol in enumerate(symbols))


def words_table(words: Iterable[str]) -> List[str]:
    """Return the symbols of ``words.txt``: ``<eps>``, the words sorted, ``#0``, ``<s>``, ``</s>``.

    Raises:
      UserError: one of the special symbols is among the words.
    """
    known = set(words)
    for special in (EPS, DISAMBIG, BOS, EOS):
        if special in known:
            raise UserError(f"{special} is reserved and cannot be a word")
    return [EPS, *sorted(known), DISAMBIG, BOS, EOS]


def text_lines(path: PathLike) -> Iterator[Tuple[int, List[str]]]:
    """Yield line number and words of each line of a text file; empty lines are left out.

    Raises:
      UserError: the file is missing or not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as f:
            for number, line in enumerate(f, 1):
                fields = line.split()
                if fields:
                    yield number, fields
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read {path}: {e}") from e
