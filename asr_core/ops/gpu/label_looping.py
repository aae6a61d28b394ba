"""Greedy search with a stateless transducer in one launch: each program searches an utterance from
its first frame to its last.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.gpu.products import precision, product

_WINDOW = 16  # frames in which a round looks for the next token; matrix products take no fewer
_BLOCK_J = 32


class Contexts(NamedTuple):
    """The numbering of a predictor's contexts: ``code mod keep * base + token + 1`` follows
    ``code`` after ``token``.
    """

    start: int
    base: int
    keep: int


class Found(NamedTuple):
    """Tokens of N utterances.

    Attributes:
      tokens, frames: (N, L) int32, in the first places of each row.
      number: (N,) int32, of tokens.
      score: (N,) float32, log-probability of the choices.
    """

    tokens: Tensor
    frames: Tensor
    number: Tensor
    score: Tensor


@triton.jit
def _label_looping(
    x_at, rows_at, weight_at, bias_at, lens_at, tokens_at, frames_at, count_at, score_at,
    num_frames, width, vocab, room, start, base, keep, blank, max_sym, penalty, sharpness,
    WINDOW: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_J: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lens_at + row).to(tl.int32)
    x_at += row * num_frames * width
    window = tl.arange(0, WINDOW)
    now = length * 0
    repeats = length * 0
    count = length * 0
    code = length.to(tl.int64) * 0 + start
    score = length.to(tl.float32) * 0.0
    while now < length:
        time = now + window
        within = time < length
        best = tl.full([WINDOW], float("-inf"), tl.float32)
        mass = tl.zeros([WINDOW], tl.float32)  # of the softmax, relative to the best
        token = tl.zeros([WINDOW], tl.int32)
        for v0 in range(0, vocab, BLOCK_V):
            v = v0 + tl.arange(0, BLOCK_V)
            logits = tl.zeros([WINDOW, BLOCK_V], tl.float32)
            for j0 in range(0, width, BLOCK_J):
                j = j0 + tl.arange(0, BLOCK_J)
                inside = j < width
                e = tl.load(
                    x_at + time[:, None] * width + j[None, :], within[:, None] & inside[None, :], other=0.0
                )
                d = tl.load(rows_at + code * width + j, inside, other=0.0)
                h = 2.0 * tl.sigmoid(2.0 * (e.to(tl.float32) + d.to(tl.float32)[None, :])) - 1.0
                w = tl.load(weight_at + j[:, None] * vocab + v[None, :], inside[:, None], other=0.0)
                logits += product(h.to(w.dtype), w, PRECISION)
            logits += tl.load(bias_at + v)[None, :]
            logits = tl.where((v == blank)[None, :], logits - penalty, logits) * sharpness
            top = tl.max(logits, 1)
            high = tl.maximum(best, top)
            mass = mass * tl.exp(best - high) + tl.sum(tl.exp(logits - high[:, None]), 1)
            token = tl.where(top > best, v0 + tl.argmax(logits, 1), token)
            best = high
        first = tl.min(tl.where(within & (token != blank), window, WINDOW), 0)
        found = first < WINDOW
        last = tl.minimum(first, WINDOW - 1)
        score -= tl.sum(tl.where(within & (window <= last), tl.log(mass), 0.0), 0)
        chosen = tl.sum(tl.where(window == first, token, 0), 0)
        tl.store(tokens_at + row * room + count, chosen, found)
        tl.store(frames_at + row * room + count, now + last, found)
        count += found.to(tl.int32)
        code = tl.where(found, code % keep * base + chosen + 1, code)
        again = tl.where(last == 0, repeats, 0) + 1
        leave = (first >= WINDOW) | (again >= max_sym)
        repeats = tl.where(leave, 0, again)
        now += last + leave.to(tl.int32)
    tl.store(count_at + row, count)
    tl.store(score_at + row, score)


class Output(NamedTuple):
    """The output layer of a joiner, V rounded up to whole blocks.

    Attributes:
      weight: (J, V).
      bias: (V,) float32, minus infinity where there is no token.
      block: tokens whose logits are made together.
    """

    weight: Tensor
    bias: Tensor
    block: int


def output_of(weight: Tensor, bias: Tensor) -> Output:
    """Return the output layer of weight (V, J) and bias (V,) as the kernel wants it."""
    most = 256 if weight.dtype == torch.float32 else 512  # more would not fit into registers
    block = min(most, max(16, triton.next_power_of_2(weight.size(0))))
    size = triton.cdiv(weight.size(0), block) * block
    padded = weight.new_zeros(weight.size(1), size)
    padded[:, : weight.size(0)] = weight.t()
    more = torch.full((size,), float("-inf"), device=bias.device)
    more[: weight.size(0)] = bias
    return Output(padded, more, block)


def label_looping(
    x: Tensor,
    lens: Tensor,
    rows: Tensor,
    output: Output,
    contexts: Contexts,
    *,
    blank: int,
    max_sym: int,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
) -> Found:
    """Search for the best token of each frame with a joiner that is ``W tanh(e + d) + b``.

    Args:
      x: (N, T, J) projected frames e.
      lens: (N,) int64.
      rows: (number of contexts, J) projected predictor outputs d by code.
      output: W and b, see :func:`output_of`.
      contexts: the codes.
      blank: id of blank.
      max_sym: tokens that a frame may give.
      blank_penalty: subtracted from the logit of blank.
      temperature: divisor of the logits.
    """
    x, rows = x.contiguous(), rows.contiguous()
    num, num_frames, width = x.shape
    room = num_frames * max_sym
    tokens = torch.empty(2, num, room, dtype=torch.int32, device=x.device)
    count = torch.empty(num, dtype=torch.int32, device=x.device)
    score = torch.empty(num, dtype=torch.float32, device=x.device)
    _label_looping[(num,)](
        x, rows, output.weight, output.bias, lens, tokens[0], tokens[1], count, score,
        num_frames, width, len(output.bias), room, *contexts, blank, max_sym,
        float(blank_penalty), 1.0 / temperature, PRECISION=precision(),
        WINDOW=_WINDOW, BLOCK_V=output.block, BLOCK_J=_BLOCK_J, num_warps=8, num_stages=3,
    )  # fmt: skip
    return Found(tokens[0], tokens[1], count, score)
