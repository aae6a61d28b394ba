"""Padding and chunk masks, True at what must not be seen."""

from typing import Optional

import torch
from torch import Tensor


def make_pad_mask(lengths: Tensor, max_len: int = 0) -> Tensor:
    """Return the mask of padded frames.

    Args:
      lengths: (N,) valid frames of each sequence.
      max_len: width of the mask; 0 takes the longest length.

    Returns:
      (N, T) boolean, True at padded frames.
    """
    if max_len <= 0:
        max_len = int(lengths.max())
    return torch.arange(max_len, device=lengths.device).unsqueeze(0) >= lengths.unsqueeze(1)


def may_be_padded(lengths: Tensor, num_frames: int) -> bool:
    """Return whether a batch has padding; True where looking at the lengths (N,) would wait for a
    device or be fixed by a tracer.
    """
    if torch.jit.is_tracing() or lengths.device.type != "cpu":
        return True
    if not torch.jit.is_scripting():
        if torch.compiler.is_compiling():
            return True
    return bool((lengths < num_frames).any())


def repeat_last_frame(x: Tensor, pad_mask: Optional[Tensor]) -> Tensor:
    """Replace the padding of x (T, N, C) by each sequence's last valid frame.

    Args:
      x: (T, N, C).
      pad_mask: (N, T) boolean, True at padding; None without padding.

    Returns:
      (T, N, C)
    """
    if pad_mask is None:
        return x
    padded = pad_mask.transpose(0, 1).unsqueeze(2)
    last = (x.size(0) - 1 - padded.long().sum(dim=0)).clamp(min=0)
    return torch.where(padded, x.gather(0, last.unsqueeze(0).expand(1, x.size(1), x.size(2))), x)


def chunk_mask(num_frames: int, chunk_size: int, left_chunks: int, device: torch.device) -> Tensor:
    """Return the mask of an encoder that sees its own chunk and ``left_chunks`` earlier ones (all
    of them when negative).

    Returns:
      (T, T) boolean, rows are queries and columns are keys.
    """
    chunk = torch.arange(num_frames, device=device) // chunk_size
    query, key = chunk.unsqueeze(1), chunk.unsqueeze(0)
    mask = key > query
    if left_chunks >= 0:
        mask = mask | (key < query - left_chunks)
    return mask


def cached_mask(processed: Tensor, left: int, pad_mask: Tensor) -> Tensor:
    """Return the mask of a chunk's keys: ``left`` cached frames, the oldest first, of which a new
    stream has none, and the chunk's own.

    Args:
      processed: (N,) frames that each stream has behind it.
      left: cached frames.
      pad_mask: (N, T) boolean, True at padding of the chunk.

    Returns:
      (N, left + T) boolean.
    """
    age = torch.arange(left - 1, -1, -1, device=pad_mask.device)
    return torch.cat([processed.unsqueeze(1) <= age, pad_mask], dim=1)


def future_mask(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return the mask (T, S) of an encoder that sees no later frame: T queries, S keys, the last
    query at the last key.
    """
    query = torch.arange(num_keys - num_queries, num_keys, device=device)
    return torch.arange(num_keys, device=device).unsqueeze(0) > query.unsqueeze(1)


def merge_masks(attn_mask: Optional[Tensor], pad_mask: Optional[Tensor]) -> Optional[Tensor]:
    """Merge masks (T, S) and (N, S), of which either may be None, to one: (N or 1, T or 1, S)."""
    if attn_mask is None:
        return None if pad_mask is None else pad_mask.unsqueeze(1)
    merged = attn_mask.unsqueeze(0)
    return merged if pad_mask is None else merged | pad_mask.unsqueeze(1)
