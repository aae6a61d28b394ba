"""Cases: attention weights with relative positions."""

from typing import Any, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from asr_core.ops import attention
from gpu_check.cases import Case, Draw, Sizes, Work

# The first stack at 50 Hz, and the second at 25 Hz, on 20 utterances of 15 s.
_FIRST = {"heads": 4, "batch": 20, "frames": 750, "width": 32, "positions": 4}
_TINY = {"heads": 2, "batch": 2, "frames": 7, "width": 8, "positions": 4}
_ODD = {"heads": 3, "batch": 3, "frames": 131, "width": 32, "positions": 4}


def _inputs(mask: str) -> Any:
    def make(draw: Draw, s: Sizes) -> Sequence[Any]:
        h, n, t = s["heads"], s["batch"], s["frames"]
        q, k = (draw.normal(h, n, t, s["width"]) for _ in range(2))
        p = draw.normal(h, n, t, s["positions"])
        pos = draw.normal(h, 2 * t - 1, s["positions"])
        return [q, k, p, pos, _mask(mask, draw, n, t)]

    return make


def _mask(kind: str, draw: Draw, n: int, t: int) -> Optional[Tensor]:
    """Return a mask (N or 1, T or 1, S): of padding, or of chunks and padding."""
    if not kind:
        return None
    lens = torch.tensor([max(1, t - i * t // (2 * n)) for i in range(n)]).view(-1, 1, 1)
    mask = torch.arange(t).view(1, 1, -1) >= lens
    if kind == "chunks":
        size = max(2, t // 5)
        chunk = torch.arange(t) // size
        mask = mask | (chunk.view(1, 1, -1) > chunk.view(1, -1, 1))
    return mask.to(draw.device)


def _ours(q: Tensor, k: Tensor, p: Tensor, pos: Tensor, mask: Optional[Tensor]) -> List[Tensor]:
    """Return the weights, and the first head's, whose gradient is another argument of backward."""
    return list(attention.attention_weights(q, k, p, pos, mask))


def _plain(q: Tensor, k: Tensor, p: Tensor, pos: Tensor, mask: Optional[Tensor]) -> List[Tensor]:
    weights = attention.attention_weights_plain(q, k, p, pos, mask)
    return [weights, weights[:1]]


def _forward(s: Sizes) -> Work:
    h, n, t = s["heads"], s["batch"], s["frames"]
    read = h * n * t * (2 * s["width"] + s["positions"]) + h * (2 * t - 1) * s["positions"]
    scores = h * n * t * t
    return Work(read, scores, 2 * scores * (s["width"] + s["positions"]), matrix=True)


def _backward(s: Sizes) -> Work:
    forward = _forward(s)
    # weights and their gradient in; the gradients of the inputs out
    return Work(2 * forward.written + forward.read, forward.read, 2 * forward.flops, matrix=True)


def _case(name: str, mask: str, bench: Dict[str, int]) -> Case:
    return Case(
        name,
        _inputs(mask),
        _ours,
        _plain,
        tiny=_TINY,
        odd=_ODD,
        bench=bench,
        forward=_forward,
        backward=_backward,
        slack=5.0,
    )


def cases() -> List[Case]:
    """Return the cases of this family."""
    return [
        _case("attention weights", "padding", _FIRST),
        _case("attention weights, chunks", "chunks", {**_FIRST, "frames": 375}),
        _case("attention weights, no mask", "", {**_FIRST, "frames": 188, "heads": 8}),
    ]
