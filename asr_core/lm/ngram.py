"""N-gram language models as flat automata: states are histories, arcs are words.

A word without an arc is looked up after backing off to a shorter history (Katz 1987).
"""

import dataclasses
from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from asr_core.lm.arpa import LN10, Arpa, read_arpa
from asr_core.lm.ngram_kernels import query, query_batch
from asr_core.lm.symbols import BOS, EOS, UNKNOWN
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

NO_FINAL = -np.inf  # final weight of a state that has none and backs off
_UNKNOWN_LOG_PROB = -100.0 * LN10  # where a model has no <unk>


@dataclass
class Automaton:
    """The arrays of a model with S states and A arcs; arcs are sorted by (source state, word).

    Attributes:
      begin: (S + 1,) int64; the arcs of state s are ``begin[s] .. begin[s + 1]``.
      word, dest: (A,) int32; the word of each arc and the state it leads to.
      weight: (A,) float32, natural log-probability of each arc.
      backoff_state: (S,) int32, -1 for the root, which has no shorter history.
      backoff_weight: (S,) float32, natural log back-off weight.
      final: (S,) float32, log-probability of the sentence end; ``-inf``: it is found by backing
        off.
      start: the state after ``<s>``; the root where the model does not know ``<s>``.
      root: the state of the empty history.
    """

    begin: np.ndarray
    word: np.ndarray
    dest: np.ndarray
    weight: np.ndarray
    backoff_state: np.ndarray
    backoff_weight: np.ndarray
    final: np.ndarray
    start: int
    root: int


class NgramLm:
    """A back-off n-gram model over integer tokens.

    A state is an integer that stands for a history. All log-probabilities are natural. Tokens that
    the model does not know have the probability of its ``<unk>``, or ``10^-100`` where it has none,
    and the history after them is empty.

    Args:
      automaton: its arrays.
      symbols: id of each word; if ``</s>`` is among them, it may be scored like a word.

    Attributes:
      automaton, symbols: as given.
      eos: id of ``</s>``; -1: none.
    """

    def __init__(self, automaton: Automaton, symbols: Mapping[str, int]) -> None:
        self.automaton = automaton
        self.symbols: Dict[str, int] = dict(symbols)
        a = automaton
        first, last = int(a.begin[a.root]), int(a.begin[a.root + 1])
        size = int(max([*self.symbols.values(), *(a.word[first:last].tolist() or [-1])], default=-1)) + 1
        root_arc = np.full(size, -1, dtype=np.int32 if len(a.word) < 2**31 else np.int64)
        root_arc[a.word[first:last]] = np.arange(first, last)
        named = [self.symbols[name] for name in UNKNOWN if name in self.symbols]
        unknown = [i for i in named if root_arc[i] >= 0]
        self._root_arc, self.eos = root_arc, self.symbols.get(EOS, -1)
        self._unknown = unknown[0] if unknown else -1
        self._tables = (
            a.begin, a.word, a.dest, a.weight, a.backoff_state, a.backoff_weight, a.final, root_arc,
            self._unknown, self.eos, a.root, _UNKNOWN_LOG_PROB,
        )  # fmt: skip

    @classmethod
    def from_arpa(
        cls, path: PathLike, symbols: Optional[Mapping[str, int]] = None, max_order: int = 0
    ) -> "NgramLm":
        """Read an ARPA file; arguments and errors as :func:`asr_core.lm.arpa.read_arpa`."""
        arpa = read_arpa(path, symbols, max_order)
        try:
            return cls.from_ngrams(arpa)
        except UserError as e:
            raise UserError(f"{path}: {e}") from e

    @classmethod
    def from_ngrams(cls, arpa: Arpa) -> "NgramLm":
        """Build the automaton of an ARPA file's contents.

        Raises:
          UserError: an n-gram is repeated, or its history or last word is not in the file.
        """
        return cls(_Builder(arpa).build(), arpa.symbols)

    @property
    def num_states(self) -> int:
        """S, the number of states."""
        return len(self.automaton.backoff_state)

    def initial_state(self, bos: bool = True) -> int:
        """Return the state at the start of a sentence; without ``bos``, of the empty history."""
        return self.automaton.start if bos else self.automaton.root

    def score(self, state: int, token: int) -> Tuple[float, int]:
        """Return the log-probability of ``token`` after ``state``, and the state that follows."""
        log_prob, state = query(*self._tables, state, token)
        return float(log_prob), int(state)

    def score_batch(self, states: np.ndarray, tokens: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Score M pairs at once.

        Args:
          states: (M,) integers.
          tokens: (M,) integers.

        Returns:
          Log-probabilities (M,) float32 and states (M,) int32.
        """
        states = np.ascontiguousarray(states, dtype=np.int32)
        tokens = np.ascontiguousarray(tokens, dtype=np.int32)
        if states.shape != tokens.shape or states.ndim != 1:
            shapes = f"{states.shape} and {tokens.shape}"
            raise ValueError(f"states and tokens must have one shape (M,), got {shapes}")
        return query_batch(*self._tables, states, tokens)

    def final_score(self, state: int) -> float:
        """Return the log-probability that the sentence ends here; ``-inf`` without ``</s>``."""
        a, total = self.automaton, 0.0
        while a.final[state] == NO_FINAL and a.backoff_state[state] >= 0:
            total += float(a.backoff_weight[state])
            state = int(a.backoff_state[state])
        return total + float(a.final[state])

    def sentence_log_prob(self, tokens: Iterable[int], bos: bool = True, eos: bool = True) -> float:
        """Return the log-probability of a whole sentence of token ids."""
        state, total = self.initial_state(bos), 0.0
        for token in tokens:
            log_prob, state = self.score(state, token)
            total += log_prob
        return total + self.final_score(state) if eos else total

    def names_of(self, tokens: np.ndarray) -> np.ndarray:
        """Return what the model calls each of ``tokens`` (M,): the token itself, the id of
        ``<unk>`` where it is unknown, or -1 without ``<unk>``.
        """
        known = [self.is_known(token) for token in tokens.tolist()]
        return np.where(known, tokens, self._unknown)

    def is_known(self, token: int) -> bool:
        """Return whether ``token`` is in the vocabulary, so that it is not scored as unknown."""
        in_table = 0 <= token < len(self._root_arc)
        return in_table and bool(self._root_arc[token] >= 0 or token == self.eos)


class _Builder:
    """Builder of the arrays from lists of n-grams.

    State 0 is the empty history, and each n-gram shorter than the order is a state: the arc that
    adds its last word is number ``state - 1``, because arcs and states are both sorted by (history,
    word), short histories first.
    """

    def __init__(self, arpa: Arpa) -> None:
        self.arpa = arpa
        self.size = max(arpa.symbols.values(), default=-1) + 1
        self.keys = np.zeros(0, dtype=np.int64)  # state * size + word of each arc so far, ascending
        self.dest: List[np.ndarray] = []
        self.weight: List[np.ndarray] = []
        self.backoff_state = np.array([-1], dtype=np.int64)
        self.backoff_weight: List[np.ndarray] = [np.zeros(1, dtype=np.float32)]
        self.final: List[np.ndarray] = []
        self.ends: List[Tuple[np.ndarray, np.ndarray]] = []

    def build(self) -> Automaton:
        """Add all orders and return the automaton."""
        for order in range(1, self.arpa.order + 1):
            self._add(order)
        states = len(self.backoff_state)
        final = np.full(states, NO_FINAL, dtype=np.float32)
        for where, log_prob in self.ends:
            final[where] = log_prob
        source, word = np.divmod(self.keys, max(self.size, 1))
        start = -1
        if BOS in self.arpa.symbols and self.arpa.order > 1:
            start = int(self._find(np.zeros(1, np.int64), np.array([self.arpa.symbols[BOS]]))[0])
        automaton = Automaton(
            begin=np.searchsorted(source, np.arange(states + 1)).astype(np.int64),
            word=word.astype(np.int32),
            dest=np.concatenate([*self.dest, np.zeros(0, np.int64)]).astype(np.int32),
            weight=np.concatenate([*self.weight, np.zeros(0, np.float32)]),
            backoff_state=self.backoff_state.astype(np.int32),
            backoff_weight=np.concatenate(self.backoff_weight),
            final=final,
            start=max(start, 0),
            root=0,
        )
        return _without_detours(automaton)

    def _find(self, states: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Return the states (M,) after states (M,) and words (M,); -1: no such n-gram."""
        keys = states * self.size + words
        at = np.searchsorted(self.keys, keys)
        inside = at < len(self.keys)
        found = np.zeros(len(keys), dtype=bool)
        found[inside] = self.keys[at[inside]] == keys[inside]
        return np.where(found, at + 1, -1)

    def _add(self, order: int) -> None:
        """Add the n-grams of one order: arcs, and states unless it is the highest order."""
        words = self.arpa.words[order - 1].astype(np.int64)  # (n, order)
        states = self._histories(words)
        keys = states * self.size + words[:, -1]
        by_key = np.argsort(keys, kind="stable")
        keys, states, words = keys[by_key], states[by_key], words[by_key]
        log_probs, backoffs = self.arpa.log_probs[order - 1][by_key], self.arpa.backoffs[order - 1][by_key]
        twice = np.flatnonzero(np.diff(keys) == 0)
        if len(twice):
            raise UserError(f"{self._name(words[twice[0]])} occurs twice")
        is_end = words[:, -1] == self.arpa.symbols.get(EOS, -1)
        self.ends.append((states[is_end], log_probs[is_end]))
        keep = ~is_end
        shorter = self._shorter(states[keep], words[keep], order)
        if order < self.arpa.order:
            dest = len(self.backoff_state) + np.arange(int(keep.sum()))
            self.backoff_state = np.concatenate([self.backoff_state, shorter])
            self.backoff_weight.append(backoffs[keep])
        else:
            dest = shorter
        self.dest.append(dest)
        self.weight.append(log_probs[keep])
        self.keys = np.concatenate([self.keys, keys[keep]])

    def _histories(self, words: np.ndarray) -> np.ndarray:
        """Return the state (n,) of the history of each n-gram (n, order)."""
        states = np.zeros(len(words), dtype=np.int64)
        for k in range(words.shape[1] - 1):
            states = self._find(states, words[:, k])
            if (states < 0).any():
                row = int(np.argmax(states < 0))
                raise UserError(f"the history of {self._name(words[row])} is not among the {k + 1}-grams")
        return states

    def _shorter(self, states: np.ndarray, words: np.ndarray, order: int) -> np.ndarray:
        """Return the state (n,) of the longest proper suffix of each n-gram.

        Args:
          states: (n,) its history.
          words: (n, order) its words.
          order: its length.
        """
        if order == 1:
            return np.zeros(len(words), dtype=np.int64)
        histories = self.backoff_state[states]
        out = np.full(len(words), -1, dtype=np.int64)
        while (todo := np.flatnonzero(out < 0)).size:
            out[todo] = self._find(histories[todo], words[todo, -1])
            missing = todo[out[todo] < 0]
            if (histories[missing] == 0).any():
                row = int(missing[np.argmax(histories[missing] == 0)])
                raise UserError(f"the last word of {self._name(words[row])} is not among the 1-grams")
            histories[missing] = self.backoff_state[histories[missing]]
        return out

    def _name(self, ids: Sequence[int]) -> str:
        names = {i: word for word, i in self.arpa.symbols.items()}
        return f"the {len(ids)}-gram '{' '.join(names[int(i)] for i in ids)}'"


def _without_detours(a: Automaton) -> Automaton:
    """Redirect arcs past states that only back off at no cost; this merges equivalent histories.

    Such states stay, because the numbers of others must not change, but nothing leads to them.
    """
    idle = (np.diff(a.begin) == 0) & (a.final == NO_FINAL) & (a.backoff_weight == 0) & (a.backoff_state >= 0)
    target = np.where(idle, a.backoff_state, np.arange(len(idle))).astype(np.int32)
    while (further := target[target] != target).any():
        target[further] = target[target[further]]
    backoff_state = np.where(a.backoff_state >= 0, target[a.backoff_state], -1).astype(np.int32)
    return dataclasses.replace(
        a, dest=target[a.dest], backoff_state=backoff_state, start=int(target[a.start])
    )
