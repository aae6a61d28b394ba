"""States of many streams as one batch."""

from typing import List, Sequence

import torch
from torch import Tensor


def stack_states(list_of_states: Sequence[Sequence[Tensor]], dims: Sequence[int]) -> List[Tensor]:
    """Join the states of several streams, or batches of streams, into those of one batch.

    Args:
      list_of_states: for each of them a list of tensors, as ``get_init_states`` returns it.
      dims: batch axis of each tensor in such a list.

    Raises:
      ValueError: a list has another length than ``dims``.
    """
    if any(len(states) != len(dims) for states in list_of_states):
        raise ValueError(f"every stream must have {len(dims)} states, got {[len(s) for s in list_of_states]}")
    return [torch.cat([states[i] for states in list_of_states], dim=dim) for i, dim in enumerate(dims)]


def select_states(states: Sequence[Tensor], dims: Sequence[int], index: Tensor) -> List[Tensor]:
    """Return the states of some streams of a batch.

    Args:
      states: states of the batch.
      dims: batch axis of each of them.
      index: (N,) int64, the streams.

    Raises:
      ValueError: there are not as many states as ``dims``.
    """
    if len(states) != len(dims):
        raise ValueError(f"{len(states)} states but {len(dims)} batch axes")
    return [state.index_select(dim, index) for state, dim in zip(states, dims)]
