"""Weighted finite-state graphs as flat arrays, read from and written to OpenFst's text form."""

import dataclasses
from array import array
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike, write_text_atomic


@dataclasses.dataclass(frozen=True)
class Fsa:
    """A graph with S states and A arcs; the arcs are sorted by (source state, label).

    Attributes:
      begin: (S + 1,) int64; the arcs of state s are ``begin[s] .. begin[s + 1]``.
      label: (A,) int32, input labels.
      output: (A,) int32, output labels, 0 for none.
      dest: (A,) int32.
      score: (A,) float32, log-weights: the higher the better (OpenFst's text has costs, their negatives).
      final: (S,) float32, log-weight of ending; -inf where a state is not final.
      start: the initial state.
      names: of the output labels, if they are words.
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
        return len(self.final)

    @property
    def num_arcs(self) -> int:
        return len(self.label)

    @classmethod
    def from_arcs(
        cls,
        arcs: Sequence[Tuple[int, int, int, int, float]],
        final: Mapping[int, float],
        start: int = 0,
        num_states: int = 0,
    ) -> "Fsa":
        """Build a graph.

        Args:
          arcs: (source, destination, input label, output label, score) of each.
          final: log-weight of each final state.
          start: the initial state.
          num_states: at least so many; more if there are arcs to more.
        """
        columns: List[np.ndarray] = [
            np.array([arc[i] for arc in arcs], np.float32 if i == 4 else np.int64) for i in range(5)
        ]
        return cls.from_columns(columns, final, start, num_states)

    @classmethod
    def from_columns(
        cls, columns: Sequence[np.ndarray], final: Mapping[int, float], start: int, num_states: int = 0
    ) -> "Fsa":
        """The same of arrays (A,): sources, destinations, input labels, output labels, scores."""
        source, dest, label, output, score = columns
        size = max(
            [
                num_states,
                start + 1,
                *(s + 1 for s in final),
                *(int(c.max()) + 1 for c in (source, dest) if len(c)),
            ]
        )
        order = np.lexsort((label, source))
        begin = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=size))]).astype(np.int64)
        ends = np.full(size, -np.inf, np.float32)
        for state, weight in final.items():
            ends[state] = weight
        integers = (x[order].astype(np.int32) for x in (label, output, dest))
        return cls(begin, *integers, score[order].astype(np.float32), ends, start)

    @classmethod
    def read(cls, path: PathLike) -> "Fsa":
        """Read OpenFst's text form: ``source dest input output [cost]`` or ``state [cost]`` a line; the first state is initial.

        An acceptor's arcs may have one label; it is then the output label too.

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
        """The same of lines; ``name`` stands for the file in error messages."""
        integers = [array("q") for _ in range(4)]
        scores, final = array("f"), {}
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
        columns = [np.frombuffer(c, dtype=np.int64) if len(c) else np.zeros(0, np.int64) for c in integers]
        if any(len(c) and c.min() < 0 for c in columns) or min(final, default=0) < 0:
            raise UserError(f"{name}: states and labels must not be negative")
        graph = cls.from_columns([*columns, np.array(scores, dtype=np.float32)], final, start)
        if not final:
            raise UserError(f"{name} has no final state, so it accepts nothing")
        return graph

    def write(self, path: PathLike) -> None:
        """Write OpenFst's text form."""
        write_text_atomic(Path(path), "".join(self.text()))

    def text(self) -> Iterator[str]:
        """The lines of OpenFst's text form."""
        order = [self.start, *(s for s in range(self.num_states) if s != self.start)]
        for state in order:
            for a in range(self.begin[state], self.begin[state + 1]):
                yield f"{state}\t{self.dest[a]}\t{self.label[a]}\t{self.output[a]}\t{-self.score[a]:.9g}\n"
            if self.final[state] > -np.inf:
                yield f"{state}\t{-self.final[state]:.9g}\n"
            elif state == self.start and self.begin[state] == self.begin[state + 1]:
                yield f"{state}\tInfinity\n"

    def scaled(self, scale: float) -> "Fsa":
        """The same with all scores multiplied by ``scale``."""
        ends = np.where(self.final > -np.inf, self.final, 0.0) * np.float32(scale)
        final = np.where(self.final > -np.inf, ends, self.final).astype(np.float32)
        return dataclasses.replace(self, score=self.score * np.float32(scale), final=final)

    def with_words(self, table: Mapping[str, int]) -> "Fsa":
        """The same with the names of its output labels.

        Raises:
          UserError: an output label has no name.
        """
        names: Dict[int, str] = {i: word for word, i in table.items()}
        unknown = set(np.unique(self.output).tolist()) - {0, *names}
        if unknown:
            raise UserError(
                f"the graph has the output label {min(unknown)}, which words.txt does not name: they do not belong together"
            )
        return dataclasses.replace(self, names=names)

    def words(self, arcs: Sequence[int]) -> Optional[List[str]]:
        """The words on ``arcs``; None where the graph has no words."""
        if self.names is None:
            return None
        return [word for o in self.output[list(arcs)].tolist() if o != 0 for word in self.names[o].split()]

    def check_labels(self, vocab_size: int, blank: int) -> None:
        """Refuse input labels that are no tokens.

        Raises:
          UserError: an arc has an epsilon (blank) as its input label, or one beyond the vocabulary.
        """
        if (self.label == blank).any():
            raise UserError(
                f"the graph has arcs without a token (input label {blank}), which a search cannot follow"
            )
        if len(self.label) and int(self.label.max()) >= vocab_size:
            raise UserError(
                f"the graph has the token {self.label.max()}, but the model has {vocab_size}: it was made for another one"
            )


def _read_arc(fields: List[str], integers: List[array], scores: array) -> int:
    """Append an arc's columns; returns its source state."""
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
