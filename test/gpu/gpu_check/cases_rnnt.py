"""Cases: the RNN-T losses, step by step and together."""

from typing import Any, List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_core.ops import rnnt_loss as rnnt
from asr_core.ops.ctc_loss import ctc_loss
from gpu_check.cases import Case, Draw, Sizes, Work

_BENCH = {"batch": 30, "frames": 400, "symbols": 80, "vocabulary": 500, "window": 5}
_TINY = {"batch": 2, "frames": 7, "symbols": 3, "vocabulary": 6, "window": 2}
_ODD = {"batch": 3, "frames": 61, "symbols": 13, "vocabulary": 77, "window": 5}


def _boundary(s: Sizes, device: str) -> Tensor:
    n = s["batch"]
    rows = [[0, 0, s["symbols"] - i % 3 % s["symbols"], s["frames"] - 5 * i // n] for i in range(n)]
    return torch.tensor(rows, device=device)


def _ctc_inputs(draw: Draw, s: Sizes) -> Sequence[Any]:
    log_probs = draw.normal(s["batch"], s["frames"], s["vocabulary"])
    return [log_probs, draw.integers(1, s["vocabulary"], s["batch"], s["symbols"]), _boundary(s, draw.device)]


def _ctc(log_probs: Tensor, symbols: Tensor, boundary: Tensor) -> Sequence[Tensor]:
    labels = [row[:n] for row, n in zip(symbols.tolist(), boundary[:, 2].tolist())]
    return [ctc_loss(log_probs.float().log_softmax(-1), boundary[:, 3], labels)]


def _ctc_plain(log_probs: Tensor, symbols: Tensor, boundary: Tensor) -> Sequence[Tensor]:
    lens, frames = boundary[:, 2].cpu(), boundary[:, 3].cpu()
    labels = torch.cat([row[:n] for row, n in zip(symbols.cpu(), lens.tolist())])
    log_probs = log_probs.float().log_softmax(-1).transpose(0, 1)
    return [F.ctc_loss(log_probs, labels, frames, lens, reduction="none")]


def _ctc_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        scores = s["batch"] * s["frames"] * s["vocabulary"]
        states = s["batch"] * s["frames"] * (2 * s["symbols"] + 1)
        return Work(scores, scores * (passes - 1), 12.0 * states, other_bytes=8.0 * states)

    return work


def _factors(draw: Draw, s: Sizes) -> Sequence[Any]:
    n, v = s["batch"], s["vocabulary"]
    lm, am = draw.normal(n, s["symbols"] + 1, v), draw.normal(n, s["frames"], v)
    return [lm, am, draw.integers(1, v, n, s["symbols"]), _boundary(s, draw.device)]


def _smoothed(backend: str) -> Any:
    def loss(lm: Tensor, am: Tensor, symbols: Tensor, boundary: Tensor) -> Sequence[Tensor]:
        found, counts = rnnt.rnnt_loss_smoothed(
            lm, am, symbols, 0, 0.25, 0.1, boundary, reduction="none", return_grad=True, backend=backend
        )
        return [found, *counts]

    return loss


def _smoothed_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        n, t, u, v = s["batch"], s["frames"], s["symbols"] + 1, s["vocabulary"]
        factors, cells = n * (t + u) * v, n * t * u
        products = 2.0 * cells * v
        if passes == 1:  # occupation counts are results, too
            return Work(factors, 0, products, matrix=True, other_bytes=4.0 * 2 * cells)
        return Work(factors, factors, 2 * products, matrix=True, other_bytes=4.0 * 2 * cells)

    return work


def _window(draw: Draw, s: Sizes) -> Sequence[Any]:
    n, t, r = s["batch"], s["frames"], min(s["window"], s["symbols"] + 1)
    logits = draw.normal(n, t, r, s["vocabulary"])
    boundary = _boundary(s, draw.device)
    # windows that move along the diagonal, as fast as each utterance needs
    last = (boundary[:, 2] + 1 - r).clamp(min=0).view(-1, 1)
    at = torch.arange(t, device=draw.device).view(1, -1)
    first = torch.minimum(at * (last + 1) // boundary[:, 3].view(-1, 1), last)
    ranges = first.unsqueeze(2) + torch.arange(r, device=draw.device)
    return [logits, draw.integers(1, s["vocabulary"], n, s["symbols"]), ranges, boundary]


def _pruned(backend: str) -> Any:
    def loss(logits: Tensor, symbols: Tensor, ranges: Tensor, boundary: Tensor) -> Tensor:
        return rnnt.rnnt_loss_pruned(logits, symbols, ranges, 0, boundary, reduction="none", backend=backend)

    return loss


def _pruned_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        logits = s["batch"] * s["frames"] * s["window"] * s["vocabulary"]
        return Work(logits, 0 if passes == 1 else logits, 5.0 * logits)

    return work


def _arc_scores(draw: Draw, s: Sizes) -> Sequence[Any]:
    n, t, u = s["batch"], s["frames"], s["symbols"]
    px, py = (draw.normal(n, *shape, mean=-3.0) for shape in ((u, t + 1), (u + 1, t)))
    return [px, py, _boundary(s, draw.device)]


def _recursion(backend: str) -> Any:
    def scores(px: Tensor, py: Tensor, boundary: Tensor) -> Tensor:
        return rnnt.mutual_information_recursion(px, py, boundary, backend=backend)

    return scores


def _recursion_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        arcs = 2.0 * s["batch"] * s["frames"] * (s["symbols"] + 1)
        return Work(arcs, arcs, 10.0 * arcs if passes == 1 else arcs)

    return work


def _counts(draw: Draw, s: Sizes) -> Sequence[Any]:
    """Return counts of symbols and blanks that differ enough for any precision."""
    n, t, u = s["batch"], s["frames"], s["symbols"]
    px, py = (draw.float32(n, *shape, grad=False).abs() for shape in ((u, t + 1), (u + 1, t)))
    return [px, py, _boundary(s, draw.device), s["window"]]


def _ranges(backend: str) -> Any:
    def ranges(px: Tensor, py: Tensor, boundary: Tensor, window: int) -> Tensor:
        return rnnt.get_rnnt_prune_ranges(px, py, boundary, window, backend=backend)

    return ranges


def _ranges_work(s: Sizes) -> Work:
    frames = s["batch"] * s["frames"]
    counts = 2 * frames * (s["symbols"] + 1)
    return Work(counts, 0, 4 * counts, other_bytes=8 * frames * s["window"])


def _seen(backend: str) -> Any:
    def rows(am: Tensor, lm: Tensor, ranges: Tensor) -> Sequence[Tensor]:
        return rnnt.do_rnnt_pruning(am, lm, ranges, backend=backend)

    return rows


def _seen_inputs(draw: Draw, s: Sizes) -> Sequence[Any]:
    am, lm, *_ = _joiner_inputs(draw, s)
    return [am, lm, _window(draw, {**s, "vocabulary": 2})[2]]


def _seen_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        n, t, j = s["batch"], s["frames"], s["width"]
        rows, contexts = n * t * s["window"] * j, n * (s["symbols"] + 1) * j
        # forward: the rows of lm alone, those of am are a view
        return Work(contexts, rows, 0) if passes == 1 else Work(2 * rows, contexts + n * t * j, 2.0 * rows)

    return work


def _joiner_inputs(draw: Draw, s: Sizes) -> Sequence[Any]:
    n, j, v = s["batch"], s["width"], s["vocabulary"]
    am, lm = draw.normal(n, s["frames"], j), draw.normal(n, s["symbols"] + 1, j)
    weight, bias = draw.normal(v, j, scale=j**-0.5), draw.normal(v)
    return [am, lm, weight, bias, draw.integers(1, v, n, s["symbols"]), _boundary(s, draw.device)]


def _windowed_inputs(draw: Draw, s: Sizes) -> Sequence[Any]:
    am, lm, weight, bias, symbols, _ = _joiner_inputs(draw, s)
    _, _, ranges, boundary = _window(draw, {**s, "vocabulary": 2})
    return [am, lm, weight, bias, symbols, ranges, boundary]


def _windowed(
    am: Tensor, lm: Tensor, w: Tensor, b: Tensor, symbols: Tensor, ranges: Tensor, boundary: Tensor
) -> Tensor:
    return rnnt.rnnt_loss_pruned_projected(
        am, lm, w, b, symbols, ranges, 0, boundary, reduction="none", backend="auto"
    )


def _windowed_plain(
    am: Tensor, lm: Tensor, w: Tensor, b: Tensor, symbols: Tensor, ranges: Tensor, boundary: Tensor
) -> Tensor:
    hidden = torch.tanh(sum(rnnt.do_rnnt_pruning(am, lm, ranges, backend="torch")))
    return _pruned("torch")(torch.nn.functional.linear(hidden, w, b), symbols, ranges, boundary)


def _windowed_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        n, t, j = s["batch"], s["frames"], s["width"]
        inputs = n * (t + s["symbols"] + 1) * j + s["vocabulary"] * j
        product = 2.0 * n * t * s["window"] * j * s["vocabulary"]
        scores = 4.0 * 3 * n * t * s["window"]
        # backward: the logits again, their gradient times the weight, and the weight's own
        each = 1 if passes == 1 else 3
        return Work(inputs, inputs * (passes - 1), product * each, matrix=True, other_bytes=scores)

    return work


def _full(backend: str) -> Any:
    def loss(am: Tensor, lm: Tensor, w: Tensor, b: Tensor, symbols: Tensor, boundary: Tensor) -> Tensor:
        return rnnt.rnnt_loss_projected(am, lm, w, b, symbols, 0, boundary, reduction="none", backend=backend)

    return loss


def _full_work(passes: int) -> Any:
    def work(s: Sizes) -> Work:
        n, t, u, j = s["batch"], s["frames"], s["symbols"] + 1, s["width"]
        inputs = n * (t + u) * j + s["vocabulary"] * j
        product = 2.0 * n * t * u * j * s["vocabulary"]
        # backward: the logits again, their gradient times the weight, and the weight's own
        return Work(inputs, 0 if passes == 1 else inputs, product * (1 if passes == 1 else 3), matrix=True)

    return work


def cases() -> List[Case]:
    """Return the cases of this family."""
    common = {"tiny": _TINY, "odd": _ODD, "bench": _BENCH, "bench_dtype": "float32"}
    wide = {
        name: {**common[name], "width": width} for name, width in (("tiny", 8), ("odd", 45), ("bench", 512))
    }
    return [
        Case(
            "smoothed simple loss and counts",
            _factors,
            _smoothed("auto"),
            _smoothed("torch"),
            forward=_smoothed_work(1),
            backward=_smoothed_work(2),
            slack=10.0,
            **common,
        ),
        Case(
            "pruned loss",
            _window,
            _pruned("auto"),
            _pruned("torch"),
            forward=_pruned_work(1),
            backward=_pruned_work(2),
            slack=10.0,
            **common,
        ),
        Case(
            "recursion over lattices and its counts",
            _arc_scores,
            _recursion("auto"),
            _recursion("torch"),
            forward=_recursion_work(1),
            backward=_recursion_work(2),
            dtypes=("float32",),
            note="a row after the other: bound by latency",
            **common,
        ),
        Case(
            "CTC loss",
            _ctc_inputs,
            _ctc,
            _ctc_plain,
            forward=_ctc_work(1),
            backward=_ctc_work(2),
            dtypes=("float32",),
            note="a frame after the other: bound by latency",
            **common,
        ),
        Case(
            "windows of the pruned loss",
            _counts,
            _ranges("auto"),
            _ranges("torch"),
            forward=_ranges_work,
            dtypes=("float32",),
            note="a frame after the other: bound by latency",
            **common,
        ),
        Case(
            "rows seen through windows",
            _seen_inputs,
            _seen("auto"),
            _seen("torch"),
            forward=_seen_work(1),
            backward=_seen_work(2),
            **{**common, **wide, "bench_dtype": "bfloat16"},
        ),
        Case(
            "joiner and pruned loss in one",
            _windowed_inputs,
            _windowed,
            _windowed_plain,
            forward=_windowed_work(1),
            backward=_windowed_work(2),
            slack=10.0,
            **{**common, **wide, "bench_dtype": "bfloat16"},
        ),
        Case(
            "full loss from projections",
            _joiner_inputs,
            _full("auto"),
            _full("torch"),
            forward=_full_work(1),
            backward=_full_work(2),
            slack=10.0,
            **{**common, **wide},
        ),
    ]
