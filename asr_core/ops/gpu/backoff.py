"""Look-up in back-off automata in one launch, see :mod:`asr_core.ops.backoff`."""

from typing import Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_core.ops.backoff import BackOff

_BLOCK = 32  # questions of a program: there are few, and each waits for memory


@triton.jit
def _look_up(
    state_at, token_at, score_at, after_at,
    begin_at, word_at, dest_at, weight_at, back_at, back_weight_at, name_at, root_weight_at, root_dest_at,
    number, root, depth, halvings, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < number
    state = tl.load(state_at + at, inside, other=root)
    token = tl.load(token_at + at, inside, other=0)
    word = tl.load(name_at + token, inside, other=0)
    after = tl.load(root_dest_at + token, inside, other=0)
    score = tl.zeros([BLOCK], tl.float32)
    found = at < 0
    for _ in range(depth):
        low = tl.load(begin_at + state, inside, other=0)
        end = tl.load(begin_at + state + 1, inside, other=0)
        high = end
        for _ in range(halvings):
            go = low < high
            middle = (low + high) // 2
            less = tl.load(word_at + middle, go, other=0) < word
            low = tl.where(go & less, middle + 1, low)
            high = tl.where(go & (less == 0), middle, high)
        within = low < end
        here = within & (tl.load(word_at + low, within, other=-1) == word)
        score += tl.where(
            here,
            tl.load(weight_at + low, here, other=0.0),
            tl.load(back_weight_at + state, inside, other=0.0),
        )
        after = tl.where(here, tl.load(dest_at + low, here, other=0).to(tl.int64), after)
        found = found | here
        state = tl.where(here, root, tl.load(back_at + state, inside, other=0))
    score += tl.where(found, 0.0, tl.load(root_weight_at + token, inside, other=0.0))
    tl.store(score_at + at, score, inside)
    tl.store(after_at + at, after, inside)


def look_up(automaton: BackOff, state: Tensor, token: Tensor) -> Tuple[Tensor, Tensor]:
    """Return scores and following states, see :meth:`~asr_core.ops.backoff.BackOff.look_up`."""
    state, token, a = state.contiguous(), token.contiguous(), automaton.arcs
    score = torch.empty(token.shape, dtype=torch.float32, device=token.device)
    after = torch.empty_like(token)
    if token.numel():
        _look_up[(triton.cdiv(token.numel(), _BLOCK),)](
            state, token, score, after,
            a.begin, a.word, a.dest, a.weight, a.back, a.back_weight, a.name, a.root_weight, a.root_dest,
            token.numel(), automaton.root, automaton.depth, automaton.halvings, BLOCK=_BLOCK, num_warps=1,
        )  # fmt: skip
    return score, after
