"""Compiled look-up in the arrays of an :class:`asr_core.lm.ngram.Automaton`."""

from typing import Tuple

import numpy as np
from numba import njit

from asr_core.utils.compilation import announce_compilation

announce_compilation()


@njit(cache=True)
def query(  # noqa: PLR0913 - the arrays of one automaton
    begin: np.ndarray, word: np.ndarray, dest: np.ndarray, weight: np.ndarray, backoff_state: np.ndarray,
    backoff_weight: np.ndarray, final: np.ndarray, root_arc: np.ndarray, unk: int, eos: int, root: int,
    unk_log_prob: float, state: int, token: int,
) -> Tuple[float, int]:  # fmt: skip
    """Return the log-probability of ``token`` after ``state``, and the state that follows.

    Args:
      begin, word, dest, weight, backoff_state, backoff_weight, final: the automaton.
      root_arc: (V,), the root's arc of each word; -1: none.
      unk, eos: ids of ``<unk>`` and ``</s>``; -1: none.
      root: state of the empty history.
      unk_log_prob: log-probability of unknown words if there is no ``<unk>``.
      state, token: the question.
    """
    total = 0.0
    if token == eos and token >= 0:
        while final[state] == -np.inf and backoff_state[state] >= 0:
            total += backoff_weight[state]
            state = backoff_state[state]
        return total + final[state], root
    if token < 0 or token >= len(root_arc) or root_arc[token] < 0:
        token = unk
    while state != root:
        low, high = begin[state], begin[state + 1]
        while low < high:
            middle = (low + high) >> 1
            if word[middle] < token:
                low = middle + 1
            else:
                high = middle
        if low < begin[state + 1] and word[low] == token:
            return total + weight[low], dest[low]
        total += backoff_weight[state]
        state = backoff_state[state]
    if token < 0:
        return total + unk_log_prob, root
    arc = root_arc[token]
    return total + weight[arc], dest[arc]


@njit(cache=True)
def query_batch(  # noqa: PLR0913 - the arrays of one automaton
    begin: np.ndarray, word: np.ndarray, dest: np.ndarray, weight: np.ndarray, backoff_state: np.ndarray,
    backoff_weight: np.ndarray, final: np.ndarray, root_arc: np.ndarray, unk: int, eos: int, root: int,
    unk_log_prob: float, states: np.ndarray, tokens: np.ndarray,
) -> Tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Answer :func:`query` for states (M,) and tokens (M,); both results are (M,)."""
    log_probs = np.empty(len(states), dtype=np.float32)
    followers = np.empty(len(states), dtype=np.int32)
    for i in range(len(states)):
        log_probs[i], followers[i] = query(
            begin, word, dest, weight, backoff_state, backoff_weight, final, root_arc, unk, eos, root,
            unk_log_prob, states[i], tokens[i],
        )  # fmt: skip
    return log_probs, followers
