"""Weighted finite-state graphs as flat arrays, read from and written to OpenFst's text form."""

import dataclasses
import functools
from array import array
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic
from asr_core.utils.paths import PathLike


class FsaArcs(NamedTuple):
    """Arcs of a graph in any order, all (A,).

    Attributes:
      source, dest: states.
      label, output: input and output labels.
      score: log-weights.
    """

    source: np.ndarray
    dest: np.ndarray
    label: np.ndarray
    output: np.ndarray
    score: np.ndarray

    def at(self, places: np.ndarray) -> "FsaArcs":
        """Return the arcs at ``places`` (n,), or where a mask (A,) is true."""
        return FsaArcs._make(column[places] for column in self)

    def joined(self, more: "FsaArcs") -> "FsaArcs":
        """Return these arcs and ``more``."""
        return FsaArcs._make(np.concatenate(pair) for pair in zip(self, more))


@dataclasses.dataclass(frozen=True, eq=False)
class Fsa:
    """A graph with S states and A arcs; the arcs are sorted by (source state, label).

    Attributes:
      begin: (S + 1,) int64; the arcs of state s are ``begin[s] .. begin[s + 1]``.
      label: (A,) int32, input labels.
      output: (A,) int32, output labels, 0 for none.
      dest: (A,) int32.
      score: (A,) float32, log-weights: the higher the better (OpenFst's text has costs, their
        negatives).
      final: (S,) float32, log-weight of ending; -inf where a state is not final.
      start: the initial state.
      names: names of the output labels, if they are words.
    """

    begin: np.ndarray
    label: np.ndarray
    output: np.ndarray
    dest: np.ndarray
    score: np.ndarray
    final: np.ndarray
    start: int = 0
    names: Optional[Mapping[int, str]] = None

    @property
    def num_states(self) -> int:
        """S, the number of states."""
        return len(self.final)

    @property
    def num_arcs(self) -> int:
        """A, the number of arcs."""
        return len(self.label)

    def arcs(self) -> FsaArcs:
        """Return the arcs with their source states."""
        source = np.repeat(np.arange(self.num_states), np.diff(self.begin))
        return FsaArcs(source, self.dest, self.label, self.output, self.score)

    @classmethod
    def from_arcs(
        cls, arcs: FsaArcs, final: Mapping[int, float], start: int = 0, num_states: int = 0
    ) -> "Fsa":
        """Build a graph.

        Args:
          arcs: in any order.
          final: log-weight of each final state.
          start: the initial state.
          num_states: the least number of states; there are more if arcs lead to more.
        """
        named = [start, *final, *(int(c.max()) for c in (arcs.source, arcs.dest) if len(c))]
        size = max(num_states, 1 + max(named))
        order = np.lexsort((arcs.label, arcs.source))
        counts = np.bincount(arcs.source, minlength=size)
        ends = np.full(size, -np.inf, np.float32)
        for state, weight in final.items():
            ends[state] = weight
        return cls(
            begin=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            label=arcs.label[order].astype(np.int32),
            output=arcs.output[order].astype(np.int32),
            dest=arcs.dest[order].astype(np.int32),
            score=arcs.score[order].astype(np.float32),
            final=ends,
            start=start,
        )

    @classmethod
    def read(cls, path: PathLike) -> "Fsa":
        """Read OpenFst's text form.

        A line is ``source dest input output [cost]`` or ``state [cost]``; the first state is
        initial. An acceptor's arcs may have one label; it is then the output label too.

        Raises:
          UserError: the file is missing, or a line is malformed.
        """
        path = Path(path)
        try:
            with open(path, encoding="utf-8") as f:
                return cls.parse(f, str(path))
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"cannot read the graph {path}: {e}") from e

    @classmethod
    def parse(cls, lines: Iterable[str], name: str = "graph") -> "Fsa":
        """Parse lines of OpenFst's text form, see :meth:`read`; ``name`` is the file in error
        messages.
        """
        integers = [array("q") for _ in range(4)]
        scores = array("f")
        final: Dict[int, float] = {}
        start: Optional[int] = None
        for number, line in enumerate(lines, 1):
            fields = line.split()
            if not fields:
                continue
            try:
                if len(fields) <= 2:
                    state = int(fields[0])
                    final[state] = -float(fields[1]) if len(fields) == 2 else 0.0
                else:
                    state = _read_arc(fields, integers, scores)
            except (ValueError, OverflowError):
                raise UserError(
                    f"{name}:{number}: expected 'source dest input output [cost]' or 'state [cost]'"
                ) from None
            start = state if start is None else start
        if start is None:
            raise UserError(f"{name} has no states: it is not a graph")
        source, dest, label, output = (
            np.frombuffer(c, dtype=np.int64) if len(c) else np.zeros(0, np.int64) for c in integers
        )
        arcs = FsaArcs(source, dest, label, output, np.array(scores, dtype=np.float32))
        if any(c.min(initial=0) < 0 for c in (source, dest, label, output)) or min(final, default=0) < 0:
            raise UserError(f"{name}: states and labels must not be negative")
        graph = cls.from_arcs(arcs, final, start)
        if not final:
            raise UserError(f"{name} has no final state, so it accepts nothing")
        return graph

    def write(self, path: PathLike) -> None:
        """Write OpenFst's text form."""
        write_text_atomic(Path(path), "".join(self.text()))

    def text(self) -> Iterator[str]:
        """Yield the lines of OpenFst's text form."""
        order = [self.start, *(s for s in range(self.num_states) if s != self.start)]
        for state in order:
            for a in range(self.begin[state], self.begin[state + 1]):
                yield f"{state}\t{self.dest[a]}\t{self.label[a]}\t{self.output[a]}\t{-self.score[a]:.9g}\n"
            if self.final[state] > -np.inf:
                yield f"{state}\t{-self.final[state]:.9g}\n"
            elif state == self.start and self.begin[state] == self.begin[state + 1]:
                yield f"{state}\tInfinity\n"

    def scaled(self, scale: float) -> "Fsa":
        """Return the graph with all scores multiplied by ``scale``."""
        ends = np.where(self.final > -np.inf, self.final, 0.0) * np.float32(scale)
        final = np.where(self.final > -np.inf, ends, self.final).astype(np.float32)
        return dataclasses.replace(self, score=self.score * np.float32(scale), final=final)

    def with_words(self, table: Mapping[str, int]) -> "Fsa":
        """Return the graph with the names of its output labels.

        Args:
          table: id of each word.

        Raises:
          UserError: an output label has no name.
        """
        names: Dict[int, str] = {i: word for word, i in table.items()}
        unknown = set(np.unique(self.output).tolist()) - {0, *names}
        if unknown:
            raise UserError(
                f"the graph has the output label {min(unknown)}, which words.txt does not name: "
                "they do not belong together"
            )
        return dataclasses.replace(self, names=names)

    def words(self, arcs: Sequence[int]) -> Optional[List[str]]:
        """Return the words on ``arcs``; None where the graph has no words."""
        if self.names is None:
            return None
        return [word for o in self.output[list(arcs)].tolist() if o != 0 for word in self.names[o].split()]

    def check_labels(self, vocab_size: int, blank: int) -> None:
        """Refuse input labels that are not tokens.

        Raises:
          UserError: an arc has an epsilon (blank) as its input label, or one beyond the vocabulary.
        """
        if (self.label == blank).any():
            raise UserError(
                f"the graph has arcs without a token (input label {blank}), which a search cannot follow"
            )
        if len(self.label) and int(self.label.max()) >= vocab_size:
            raise UserError(
                f"the graph has the token {self.label.max()}, but the model has {vocab_size}: "
                "it was made for another model"
            )


@functools.lru_cache(maxsize=4)
def accept_all(vocab_size: int, blank: int) -> Fsa:
    """Return the graph of one state that accepts all token sequences at no cost; its arcs are
    those of :func:`asr_core.ops.fast_beam.trivial_arcs`.
    """
    token = np.array([i for i in range(vocab_size) if i != blank], dtype=np.int64)
    here = np.zeros_like(token)
    return Fsa.from_arcs(FsaArcs(here, here, token, here, np.zeros(len(token), np.float32)), {0: 0.0})


def _read_arc(fields: List[str], integers: List["array[int]"], scores: "array[float]") -> int:
    """Append an arc to the columns; return its source state."""
    if len(fields) > 5:
        raise ValueError("too many fields")
    cost = 0.0
    if len(fields) == 5 or (len(fields) == 4 and not fields[3].lstrip("-").isdigit()):
        cost = float(fields.pop())
    values = [int(f) for f in fields]
    if len(values) == 3:
        values.append(values[2])
    for column, value in zip(integers, values):
        column.append(value)
    scores.append(-cost)
    return values[0]
