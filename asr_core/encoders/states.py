"""States of many streams as one batch, and back."""

from typing import List, Sequence

import torch
from torch import Tensor


def stack_states(list_of_states: Sequence[Sequence[Tensor]], dims: Sequence[int]) -> List[Tensor]:
    """Join the states of several streams (or batches of streams) into those of one batch.

    Args:
      list_of_states: one list of tensors per stream.
      dims: the batch axis of each tensor in such a list.
    """
    if any(len(states) != len(dims) for states in list_of_states):
        raise ValueError(f"every stream must have {len(dims)} states, got {[len(s) for s in list_of_states]}")
    return [torch.cat([states[i] for states in list_of_states], dim=dim) for i, dim in enumerate(dims)]


def unstack_states(states: Sequence[Tensor], dims: Sequence[int]) -> List[List[Tensor]]:
    """Split the states of a batch into one list per stream, each with a batch of one."""
    if len(states) != len(dims):
        raise ValueError(f"{len(states)} states but {len(dims)} batch axes")
    pieces = [state.split(1, dim=dim) for state, dim in zip(states, dims)]
    return [list(stream) for stream in zip(*pieces)]
