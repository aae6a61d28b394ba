"""ARPA files: n-gram language models as text, with log10 probabilities and back-off weights."""

import gzip
import logging
import math
import re
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Iterator, List, Mapping, Optional, Sequence, TextIO, Tuple, cast

import numpy as np

from asr_core.lm.symbols import BOS, EOS, UNKNOWN
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, open_binary
from asr_core.utils.paths import PathLike

LN10 = math.log(10.0)
_COUNT = re.compile(rb"ngram\s+(\d+)\s*=\s*(\d+)$")


@dataclass
class Arpa:
    """The contents of an ARPA file.

    Attributes:
      symbols: id of each word.
      words: for each order k = 1, 2, ... the n-grams as ids, (n, k) int32, in the file's order.
      log_probs: for each order their natural log-probabilities, (n,) float32.
      backoffs: for each order their natural log back-off weights, (n,) float32; zero where the file
        gives none.
    """

    symbols: Dict[str, int]
    words: List[np.ndarray]
    log_probs: List[np.ndarray]
    backoffs: List[np.ndarray]

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.words)


def read_arpa(path: PathLike, symbols: Optional[Mapping[str, int]] = None, max_order: int = 0) -> Arpa:
    """Read an ARPA file, ``.gz`` or plain.

    Args:
      path: the file.
      symbols: ids of the words. N-grams with other words are left out, and their number is logged;
        ``<s>``, ``</s>`` and ``<unk>`` get new ids if they have none. Without a table,
        words are numbered from 0 in the order of the file.
      max_order: leave out longer n-grams; 0: keep all.

    Raises:
      UserError: the file is missing, or a line is damaged; the message names it.
    """
    path = Path(path)
    try:
        with open_binary(path) as f:
            return _Reader(path, f, symbols, max_order).read()
    except (OSError, EOFError) as e:
        raise UserError(f"cannot read the language model {path}: {e}") from e


class _Reader:
    """Parser of one ARPA file.

    Attributes:
      number: number of the line that was read last.
      skipped: n-grams left out because of words outside the symbol table.
      is_open: whether new words get new ids.
      ids: id of each word.
    """

    def __init__(
        self, path: Path, file: BinaryIO, symbols: Optional[Mapping[str, int]], max_order: int
    ) -> None:
        self.path = path
        self.max_order = max_order
        self.number = 0
        self.lines = self._count_lines(file)
        self.skipped = 0
        self.is_open = symbols is None
        self.ids: Dict[bytes, int] = {word.encode(): i for word, i in (symbols or {}).items()}
        if symbols is not None:
            has_unknown = any(name in symbols for name in UNKNOWN)
            for special in (BOS, EOS) if has_unknown else (BOS, EOS, UNKNOWN[0]):
                self.ids.setdefault(special.encode(), max(self.ids.values(), default=-1) + 1)

    def _count_lines(self, file: BinaryIO) -> Iterator[bytes]:
        for line in file:
            self.number += 1
            yield line

    def error(self, message: str) -> UserError:
        """Return the error of the present line."""
        return UserError(f"{self.path}:{self.number}: {message}")

    def read(self) -> Arpa:
        """Read the whole file."""
        counts = self._header()
        arpa = Arpa({}, [], [], [])
        for order, count in enumerate(counts, 1):
            if self.max_order and order > self.max_order:
                break
            words, log_probs, backoffs = self._section(order, count, is_last=order == len(counts))
            arpa.words.append(words)
            arpa.log_probs.append(log_probs)
            arpa.backoffs.append(backoffs if order != self.max_order else np.zeros_like(backoffs))
        else:
            if self._next_line() != b"\\end\\":
                raise self.error(
                    r"expected \end\ after the last n-gram; "
                    "the file may be cut off, or hold more n-grams than it says"
                )
        if self.skipped:
            logging.warning(
                "%s: %d n-grams with words outside the symbol table were left out", self.path, self.skipped
            )
        try:
            arpa.symbols = {word.decode(): i for word, i in self.ids.items()}
        except UnicodeDecodeError as e:
            raise UserError(f"{self.path}: a word is not UTF-8: {e}") from e
        return arpa

    def _next_line(self) -> bytes:
        """Return the next line that is not blank; an empty one at the end."""
        for line in self.lines:
            line = line.strip()
            if line:
                return line
        return b""

    def _header(self) -> List[int]:
        line = self._next_line()
        while line and line != b"\\data\\":
            line = self._next_line()
        if not line:
            raise UserError(rf"{self.path} is no ARPA file: it has no line \data\ ")
        counts: List[int] = []
        for line in self.lines:
            line = line.strip()
            match = _COUNT.match(line)
            if not match:
                if line:
                    raise self.error(f"expected 'ngram N=COUNT' or an empty line, got {_shown(line)}")
                if counts:
                    break
                continue
            if int(match[1]) != len(counts) + 1:
                raise self.error(f"expected the count of {len(counts) + 1}-grams, got {_shown(line)}")
            counts.append(int(match[2]))
        if not counts:
            raise self.error(r"no 'ngram N=COUNT' line after \data\ ")
        return counts

    def _section(self, order: int, count: int, is_last: bool) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read one order: ids (n, order), log-probabilities (n,) and back-off weights (n,)."""
        title = b"\\%d-grams:" % order
        line = self._next_line()
        if line != title:
            raise self.error(f"expected {title.decode()}, got {_shown(line)}")
        words, log_probs, backoffs = array("i"), array("f"), array("f")
        ids, is_unigram = self.ids, order == 1 and self.is_open
        done = 0
        while done < count:
            try:
                line = next(self.lines)
            except StopIteration:
                raise self.error(f"the file ends after {done} of {count} {order}-grams") from None
            fields = line.split()
            if not fields:
                continue
            log_prob, backoff = self._numbers(line, fields, order, is_last)
            done += 1
            if is_unigram:
                ids.setdefault(fields[1], len(ids))
            try:
                words.extend([ids[word] for word in fields[1 : order + 1]])
            except KeyError as e:
                if self.is_open:
                    word = e.args[0].decode(errors="replace")
                    raise self.error(f"word {word!r} is not among the 1-grams") from None
                self.skipped += 1
                continue
            log_probs.append(log_prob)
            backoffs.append(backoff)
        shaped = np.zeros((0, order), np.int32)
        if len(words):
            shaped = np.frombuffer(words, dtype=np.int32).reshape(-1, order)
        return shaped, _natural(log_probs), _natural(backoffs)

    def _numbers(
        self, line: bytes, fields: Sequence[bytes], order: int, is_last: bool
    ) -> Tuple[float, float]:
        """Return log-probability and back-off weight of a line, checked."""
        if len(fields) != order + 1 and (len(fields) != order + 2 or is_last):
            raise self.error(
                f"expected a log-probability, {order} word(s) and perhaps a back-off weight, "
                f"got {_shown(line)}"
            )
        try:
            log_prob = float(fields[0])
            backoff = float(fields[order + 1]) if len(fields) > order + 1 else 0.0
        except ValueError:
            raise self.error(f"a log-probability or back-off weight is no number: {_shown(line)}") from None
        if not log_prob <= 1e-4 or backoff != backoff:  # programs that round may write a little above 0
            raise self.error(f"a log-probability is above 0 or not a number: {_shown(line)}")
        return log_prob, backoff


def _natural(values: "array[float]") -> np.ndarray:
    return (np.array(values, dtype=np.float64) * LN10).astype(np.float32)


def _shown(line: bytes) -> str:
    text = line.strip().decode(errors="replace")
    return repr(text if len(text) <= 80 else text[:77] + "...")


def write_arpa(path: PathLike, arpa: Arpa, lowest: float = -99.0) -> None:
    """Write ``arpa`` as an ARPA file, whole or not at all.

    Args:
      path: the file; compressed if it ends in ``.gz``.
      arpa: the model; its logarithms are natural, the file's base 10.
      lowest: lower bound of the log10 numbers in the file. By convention -99 stands for "never".
    """
    names = [""] * (max(arpa.symbols.values(), default=-1) + 1)
    for word, i in arpa.symbols.items():
        names[i] = word
    with atomic_path(path) as tmp:
        is_gzip = Path(path).suffix == ".gz"
        opened = gzip.open(tmp, "wt", encoding="utf-8") if is_gzip else open(tmp, "w", encoding="utf-8")
        with cast(TextIO, opened) as f:
            f.write("\\data\\\n")
            for order, words in enumerate(arpa.words, 1):
                f.write(f"ngram {order}={len(words)}\n")
            for order in range(1, arpa.order + 1):
                f.write(f"\n\\{order}-grams:\n")
                f.writelines(_lines(arpa, order, names, lowest))
            f.write("\n\\end\\\n")


def _lines(arpa: Arpa, order: int, names: Sequence[str], lowest: float) -> Iterator[str]:
    log_probs = np.maximum(arpa.log_probs[order - 1].astype(np.float64) / LN10, lowest)
    backoffs = np.maximum(arpa.backoffs[order - 1].astype(np.float64) / LN10, lowest)
    for ids, log_prob, backoff in zip(arpa.words[order - 1], log_probs, backoffs):
        tail = f"\t{backoff:.7g}" if backoff else ""
        yield f"{log_prob:.7g}\t{' '.join([names[i] for i in ids])}{tail}\n"
