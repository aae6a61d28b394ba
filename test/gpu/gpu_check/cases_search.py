"""Cases: what searches compute beside the model."""

from typing import Any, List, Sequence

import torch
from torch import Tensor

from asr_core.ops.backoff import BackOff, BackOffArcs
from gpu_check.cases import Case, Draw, Sizes, Work


def _automaton(draw: Draw, s: Sizes) -> Sequence[Any]:
    """Return an n-gram's automaton of random arcs, and what is asked."""
    states, vocab, each = s["states"], s["vocabulary"], s["arcs"]
    gap = vocab // each  # a state's arcs ascend
    word = torch.arange(each) * gap + draw.integers(0, gap, states - 1, each).cpu()
    begin = torch.cat([torch.zeros(1), torch.arange(states) * each])
    back = draw.integers(0, states, states).cpu() // 8  # histories grow shorter
    back[0], back_weight = 0, -draw.float32(states, grad=False).abs().cpu()
    back_weight[0] = 0.0
    arcs = BackOffArcs(
        begin=begin.long(),
        word=word.flatten().int(),
        dest=draw.integers(0, states, word.numel()).cpu().int(),
        weight=draw.float32(word.numel(), grad=False),
        back=back,
        back_weight=back_weight,
        name=torch.arange(vocab),
        root_weight=draw.float32(vocab, grad=False),
        root_dest=draw.integers(0, states, vocab),
        end=torch.zeros(states),
    )
    on_device = BackOffArcs._make(x.to(draw.device) for x in arcs)
    automaton = BackOff(on_device, first=1, root=0, num_words=vocab, depth=s["order"] - 1)
    return [automaton, *(draw.integers(0, end, s["hypotheses"]) for end in (states, vocab))]


def _look_up(automaton: BackOff, state: Tensor, token: Tensor) -> Tensor:
    score, after = automaton.look_up(state, token)
    return torch.stack([score, after.to(score.dtype)])


def _look_up_plain(automaton: BackOff, state: Tensor, token: Tensor) -> Tensor:
    here = BackOffArcs._make(x.to(state.device) for x in automaton.arcs)
    moved = BackOff(
        here, first=automaton.first, root=automaton.root, num_words=len(here.name), depth=automaton.depth
    )
    score, after = moved.look_up_plain(state, token)
    return torch.stack([score, after.to(score.dtype)])


def _work(s: Sizes) -> Work:
    """Count what one question reads: states, words along a binary search, weights."""
    steps = (s["order"] - 1) * (28 + 4 * s["arcs"].bit_length())
    return Work(0, 0, 0, other_bytes=s["hypotheses"] * (40 + steps))


def cases() -> List[Case]:
    """Return the cases of this family."""
    return [
        Case(
            "look-up in a back-off n-gram",
            _automaton,
            _look_up,
            _look_up_plain,
            tiny={"hypotheses": 70, "states": 40, "vocabulary": 20, "arcs": 3, "order": 3},
            odd={"hypotheses": 1237, "states": 3001, "vocabulary": 333, "arcs": 17, "order": 4},
            bench={"hypotheses": 512, "states": 200_000, "vocabulary": 500, "arcs": 20, "order": 4},
            forward=_work,
            dtypes=("float32",),
            bench_dtype="float32",
            note="waits for memory",
        )
    ]
