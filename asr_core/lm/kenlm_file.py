"""Binary n-gram models of KenLM (https://kheafield.com/code/kenlm), mapped into memory."""

from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Tuple

import numpy as np

from asr_core.lm.arpa import LN10
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import EOS, UNKNOWN
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    import kenlm

_MAGIC = b"mmap lm http://kheafield.com/code"
_Reached = Dict[Tuple[int, int], Tuple[float, int]]
_MOST_REACHED = 1 << 20  # look-ups that are remembered: some 100 MB


def read_ngram(path: PathLike, symbols: Optional[Mapping[str, int]] = None) -> NgramLm:
    """Read an n-gram model from an ARPA file or from KenLM's binary form of one.

    Args:
      path: the file.
      symbols: ids of the words. For an ARPA file they may be left out: its words are then numbered
        in their order.

    Raises:
      UserError: the file is missing or damaged; or it is binary, and there are no symbols or KenLM
        is not installed.
    """
    if not is_kenlm_binary(path):
        return NgramLm.from_arpa(path, symbols)
    if symbols is None:
        raise UserError(f"{path} is a binary of KenLM, which does not list its words: give a symbol table")
    return KenlmNgram(path, symbols)


def is_kenlm_binary(path: PathLike) -> bool:
    """Return whether a file begins like a KenLM binary; False if it cannot be read."""
    try:
        with open(path, "rb") as f:
            return f.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class KenlmNgram(NgramLm):
    """A model that KenLM holds, without an automaton.

    Its scores are those that :class:`~asr_core.lm.ngram.NgramLm` has from the ARPA file. States are
    numbers of the histories met so far, and stay valid; earlier look-ups are remembered.

    Args:
      path: a file that KenLM can load.
      symbols: id of each word.

    Raises:
      UserError: KenLM is not installed, or cannot load the file.
    """

    def __init__(self, path: PathLike, symbols: Mapping[str, int]) -> None:
        try:
            import kenlm
        except ImportError:
            raise UserError(
                f"{path} is a binary of KenLM, which is not installed: pip install kenlm"
            ) from None
        try:
            self._model: "kenlm.Model" = kenlm.Model(str(path))
        except (OSError, RuntimeError, ValueError) as e:
            raise UserError(f"KenLM cannot load {path}: {e}") from e
        self._new_state = kenlm.State
        self.symbols: Dict[str, int] = dict(symbols)
        self._names: Dict[int, str] = {i: word for word, i in self.symbols.items()}
        begin, nothing = kenlm.State(), kenlm.State()
        self._model.BeginSentenceWrite(begin)
        self._model.NullContextWrite(nothing)
        self._states: "List[kenlm.State]" = [nothing]
        self._numbers: "Dict[kenlm.State, int]" = {nothing: 0}
        self._begin = self._number(begin)
        self._reached: _Reached = {}

    @property
    def num_states(self) -> int:
        """Number of the histories met so far."""
        return len(self._states)

    def _number(self, state: "kenlm.State") -> int:
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def initial_state(self, bos: bool = True) -> int:
        """See :class:`~asr_core.lm.ngram.NgramLm`."""
        return self._begin if bos else 0

    def score(self, state: int, token: int) -> Tuple[float, int]:
        """See :class:`~asr_core.lm.ngram.NgramLm`."""
        found = self._reached.get((state, token))
        if found is None:
            after = self._new_state()
            name = self._names.get(token, UNKNOWN[0])
            log_prob = self._model.BaseScore(self._states[state], name, after) * LN10
            found = log_prob, 0 if name == EOS else self._number(after)
            if len(self._reached) >= _MOST_REACHED:
                self._reached.clear()
            self._reached[state, token] = found
        return found

    def score_batch(self, states: np.ndarray, tokens: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """See :class:`~asr_core.lm.ngram.NgramLm`."""
        pairs = [self.score(state, token) for state, token in zip(states.tolist(), tokens.tolist())]
        log_probs, after = zip(*pairs) if pairs else ((), ())
        return np.array(log_probs, dtype=np.float32), np.array(after, dtype=np.int32)

    def final_score(self, state: int) -> float:
        """See :class:`~asr_core.lm.ngram.NgramLm`."""
        return self._model.BaseScore(self._states[state], EOS, self._new_state()) * LN10

    def is_known(self, token: int) -> bool:
        """See :class:`~asr_core.lm.ngram.NgramLm`."""
        return self._names.get(token, UNKNOWN[0]) in self._model
