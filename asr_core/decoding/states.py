"""States of many hypotheses at a time, as tensors whose first axes count the hypotheses."""

from typing import Sequence, Tuple

import torch
from torch import Tensor

States = Tuple[Tensor, ...]  # one entry for each hypothesis along the first axes of each tensor

# Hashes of token sequences are polynomials in this number modulo 2^64, so that one multiplication
# extends them. It is the multiplier of Knuth's MMIX generator, which mixes the upper bits well.
KEY_FACTOR = 6364136223846793005


def initial_scores(num: int, beam_size: int, device: torch.device) -> Tensor:
    """Return the scores (num, beam_size) of beams that have not begun: each holds one empty
    hypothesis.
    """
    scores = torch.full((num, beam_size), float("-inf"), device=device)
    scores[:, 0] = 0
    return scores


def extend_key(key: Tensor, token: Tensor, emits: Tensor) -> Tensor:
    """Return the hashes (N, B) of token sequences after ``token`` (N, B), where ``emits`` (N, B) is
    true.
    """
    return torch.where(emits, torch.add(token, key, alpha=KEY_FACTOR) + 1, key)


def select(states: States, index: Tensor) -> States:
    """Return the states at ``index`` of the first axis."""
    return tuple(s[index] for s in states)


def concatenate(parts: Sequence[States]) -> States:
    """Return the states of several groups of hypotheses, one after another along the first axis."""
    return tuple(torch.cat(tensors) for tensors in zip(*parts))


def pick(states: States, parent: Tensor) -> States:
    """Return the states (N, B, ...) of the hypotheses at places ``parent`` (N, B)."""
    if all(s.dim() == 2 for s in states):  # faster than indexing with two tensors
        return tuple(s.gather(1, parent) for s in states)
    rows = torch.arange(len(parent), device=parent.device).unsqueeze(1)  # (N, 1)
    return tuple(s[rows, parent] for s in states)
