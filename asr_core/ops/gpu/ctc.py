"""The CTC loss: one launch forward and two backward for a whole batch, and none that waits.

An utterance with labels l_1 .. l_L has 2 L + 1 states: blank, l_1, blank, l_2, ..., blank. A
program per utterance walks its frames; states exchange scores through memory, with one barrier a
frame. Scores are float64, since hundreds of frames add up, but what is added in the logarithm at
each frame is computed in float32.
"""

from typing import Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.rnnt import lattice as values

NEVER = tl.constexpr(values.NEVER)
UNREACHED = tl.constexpr(values.UNREACHED)
_FRAMES, _COLUMNS = 16, 64  # a tile of the gradient


@triton.jit
def _log_sum(a, b, c):
    """Return log(exp(a) + exp(b) + exp(c)), NEVER at least."""
    top = tl.maximum(tl.maximum(a, b), c)
    total = tl.exp((a - top).to(tl.float32)) + tl.exp((b - top).to(tl.float32))
    total += tl.exp((c - top).to(tl.float32))
    out = top + tl.log(total)
    return tl.where(out < NEVER, NEVER, out)


@triton.jit
def _states(labels_at, num_labels_at, b, s, L, blank):
    """Return the number of states of utterance b, the labels of its states, and whether a path may
    come to a state from the one before the last.
    """
    states = 2 * tl.load(num_labels_at + b).to(tl.int32) + 1
    odd = (s % 2 == 1) & (s < states)
    label = tl.load(labels_at + b * L + s // 2, odd, other=blank)
    earlier = tl.load(labels_at + b * L + s // 2 - 1, odd & (s > 2), other=blank)
    return states, label, odd & (s > 2) & (label != earlier)


@triton.jit(do_not_specialize=["T", "V", "L", "blank"])
def _losses(
    log_probs_at, labels_at, num_frames_at, num_labels_at, alpha_at, loss_at, T, V, L, blank,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Sum up an utterance's paths; alpha (N, T, 2 L + 1) gets the scores of all that begin them."""
    b, s, width = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK), 2 * L + 1
    states, label, skip = _states(labels_at, num_labels_at, b, s, L, blank)
    frames = tl.minimum(tl.load(num_frames_at + b).to(tl.int32), T)
    inside = s < states
    log_probs_at += b * T * V + label
    alpha_at += b * T * width + s
    first = tl.load(log_probs_at, s < tl.where(frames > 0, tl.minimum(states, 2), 0), other=NEVER).to(
        tl.float64
    )
    before = tl.where(first < NEVER, NEVER, first)
    tl.store(alpha_at, before, s < tl.where(frames > 0, states, 0))
    score = tl.load(log_probs_at + V, s < tl.where(frames > 1, states, 0), other=NEVER)
    for t in range(1, frames):
        more = s < tl.where(t + 1 < frames, states, 0)
        following = tl.load(log_probs_at + (t + 1) * V, more, other=NEVER)
        tl.debug_barrier()
        row = alpha_at + (t - 1) * width
        one = tl.load(row - 1, inside & (s > 0), other=NEVER)
        two = tl.load(row - 2, skip, other=NEVER)
        total = _log_sum(before, one, two) + score
        before = tl.where(inside, tl.where(total < NEVER, NEVER, total), NEVER)
        tl.store(row + width, before, inside)
        score = following
    last = tl.sum(tl.where(s == states - 1, before, 0.0), 0)
    symbol = tl.sum(tl.where(s == states - 2, before, 0.0), 0)
    symbol = tl.where(states > 1, symbol, NEVER)
    total = _log_sum(last, symbol, symbol * 0.0 + NEVER)
    total = tl.where(frames > 0, total, tl.where(states > 1, NEVER, 0.0))
    tl.store(loss_at + b, tl.where(total <= UNREACHED, float("inf"), -total).to(tl.float32))


@triton.jit(do_not_specialize=["T", "V", "L", "blank"])
def _shares(
    log_probs_at, labels_at, num_frames_at, num_labels_at, alpha_at, loss_at, score_at, share_at,
    T, V, L, blank, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the share (N, T, 2 L + 1) of an utterance's probability that passes each state; score
    (N, 2, 2 L + 1) is room for what neighbours exchange.
    """
    b, s, width = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK), 2 * L + 1
    states, label, skip = _states(labels_at, num_labels_at, b, s, L, blank)
    _, _, leap = _states(labels_at, num_labels_at, b, s + 2, L, blank)
    frames = tl.minimum(tl.load(num_frames_at + b).to(tl.int32), T)
    inside = s < states
    loss = tl.load(loss_at + b).to(tl.float64)
    log_probs_at += b * T * V + label
    alpha_at += b * T * width + s
    share_at += b * T * width + s
    score_at += b * 2 * width + s
    after = tl.where((s == states - 1) | ((s == states - 2) & (s >= 0)), 0.0, NEVER).to(tl.float64)
    for i in range(0, frames):
        t = frames - 1 - i
        whole = tl.load(alpha_at + t * width, inside, other=NEVER) + after + loss
        tl.store(share_at + t * width, tl.exp(whole.to(tl.float32)), inside)
        total = after + tl.load(log_probs_at + t * V, inside, other=NEVER)
        total = tl.where(total < NEVER, NEVER, total)
        row = score_at + (i % 2) * width
        tl.store(row, total, inside)
        tl.debug_barrier()
        one = tl.load(row + 1, s + 1 < states, other=NEVER)
        two = tl.load(row + 2, leap, other=NEVER)
        after = _log_sum(total, one, two)


@triton.jit(do_not_specialize=["T", "V", "L", "blank"])
def _gradient(
    share_at, labels_at, num_labels_at, scale_at, grad_at, T, V, L, blank,
    FRAMES: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up the shares of equal labels, in their order, for a tile of frames of an utterance."""
    tiles = tl.cdiv(T, FRAMES)
    b, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    t = tile * FRAMES + tl.arange(0, FRAMES)
    v = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    width, num_labels = 2 * L + 1, tl.load(num_labels_at + b).to(tl.int32)
    at = (b * T + t) * width
    s = tl.arange(0, BLOCK)
    even = (s % 2 == 0) & (s < tl.where(tl.program_id(1) == blank // COLUMNS, width, 0))  # in its tile
    blanks = tl.load(share_at + at[:, None] + s[None, :], (t < T)[:, None] & even[None, :], other=0.0)
    total = tl.where((v == blank)[None, :], tl.sum(blanks, 1)[:, None], 0.0)
    for i in range(0, num_labels):
        label = tl.load(labels_at + b * L + i)
        share = tl.load(share_at + at + 2 * i + 1, t < T, other=0.0)
        total += tl.where((v == label)[None, :], share[:, None], 0.0)
    to = grad_at + (b * T + t)[:, None] * V + v[None, :]
    tl.store(to, -tl.load(scale_at + b) * total, (t < T)[:, None] & (v < V)[None, :])


def losses(
    log_probs: Tensor, labels: Tensor, num_frames: Tensor, num_labels: Tensor, blank: int
) -> Tuple[Tensor, Tensor]:
    """Return the losses (N,), and what :func:`gradient` needs of the paths.

    Args:
      log_probs: (N, T, V) float32, contiguous.
      labels: (N, L) int64, padded.
      num_frames, num_labels: (N,) integers.
      blank: the blank's label.
    """
    batch, frames, columns = log_probs.shape
    width = 2 * labels.shape[1] + 1
    alpha = log_probs.new_empty(batch, max(frames, 1), width, dtype=torch.float64)
    loss = log_probs.new_empty(batch)
    _losses[(batch,)](
        log_probs, labels, num_frames, num_labels, alpha, loss, frames, columns, labels.shape[1], blank,
        BLOCK=triton.next_power_of_2(width),
    )  # fmt: skip
    return loss, alpha


def gradient(
    log_probs: Tensor,
    labels: Tensor,
    num_frames: Tensor,
    num_labels: Tensor,
    blank: int,
    loss: Tensor,
    alpha: Tensor,
    scale: Tensor,
) -> Tensor:
    """Return the gradient (N, T, V) of the log-probabilities, given that of the losses, ``scale``
    (N,) float32.
    """
    batch, frames, columns = log_probs.shape
    num = labels.shape[1]
    width = 2 * num + 1
    share = log_probs.new_zeros(batch, frames, width)
    score = log_probs.new_empty(batch, 2, width, dtype=torch.float64)
    block = triton.next_power_of_2(width)
    _shares[(batch,)](
        log_probs, labels, num_frames, num_labels, alpha, loss, score, share, frames, columns, num, blank,
        BLOCK=block,
    )  # fmt: skip
    grad = torch.empty_like(log_probs)
    grid = (batch * triton.cdiv(frames, _FRAMES), triton.cdiv(columns, _COLUMNS))
    _gradient[grid](
        share, labels, num_labels, scale, grad, frames, columns, num, blank,
        FRAMES=_FRAMES, COLUMNS=_COLUMNS, BLOCK=block,
    )  # fmt: skip
    return grad
