"""RNN-T losses against k2's numbers, against the sum over all paths, against numerical gradients;
back ends against each other.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from asr_core.ops.rnnt_loss import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "pruned_rnnt.npz")
CASES = sorted({name.split("/")[0] for name in GOLDEN.files})
BACKENDS = ["torch", "numba"]
TYPES = ["regular", "modified", "constrained"]
backends = pytest.mark.parametrize("backend", BACKENDS)
types = pytest.mark.parametrize("rnnt_type", TYPES)


def assert_close(actual, expected, tolerance):
    scale = expected.abs().max().clamp(min=1e-30)
    assert ((actual.detach() - expected).abs().max() / scale).item() < tolerance


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_equals_k2(case, dtype, backend):
    names = [name for name in GOLDEN.files if name.startswith(f"{case}/") and GOLDEN[name].ndim]
    expected = {name.split("/")[1]: torch.from_numpy(GOLDEN[name]) for name in names}
    s_range, lm_scale, am_scale, penalty = expected["params"].tolist()
    rnnt_type = str(GOLDEN[f"{case}/rnnt_type"])
    am, lm = expected["am"].to(dtype).requires_grad_(), expected["lm"].to(dtype).requires_grad_()
    symbols, boundary = expected["symbols"], expected["boundary"]
    common = dict(
        boundary=boundary, rnnt_type=rnnt_type, delay_penalty=penalty, reduction="none", backend=backend
    )

    simple, (px_grad, py_grad) = rnnt_loss_smoothed(
        lm, am, symbols, 0, lm_scale, am_scale, return_grad=True, **common
    )
    ranges = get_rnnt_prune_ranges(px_grad, py_grad, boundary, int(s_range), backend=backend)
    if dtype == torch.float32:
        assert torch.equal(ranges, expected["ranges"])
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, expected["ranges"], backend=backend)
    pruned = rnnt_loss_pruned(torch.tanh(am_pruned + lm_pruned), symbols, expected["ranges"], 0, **common)
    (0.5 * simple.sum() + pruned.sum()).backward()
    actual = {
        "simple_loss": simple,
        "px_grad": px_grad,
        "py_grad": py_grad,
        "pruned_loss": pruned,
        "am_grad": am.grad,
        "lm_grad": lm.grad,
        "unsmoothed_simple_loss": rnnt_loss_simple(lm, am, symbols, 0, **common),
        "full_loss_of_tanh_sum": rnnt_loss(torch.tanh(am[:, :, None] + lm[:, None]), symbols, 0, **common),
    }
    for name, value in actual.items():
        assert value.shape == expected[name].shape and value.dtype == dtype, name
        assert_close(value, expected[name].to(dtype), 1e-4)


@backends
@pytest.mark.parametrize("case", CASES)
def test_ranges_from_k2_counts(case, backend):
    px_grad, py_grad, boundary, ranges = (
        torch.from_numpy(GOLDEN[f"{case}/{n}"]) for n in ("px_grad", "py_grad", "boundary", "ranges")
    )
    s_range = int(GOLDEN[f"{case}/params"][0])
    assert torch.equal(get_rnnt_prune_ranges(px_grad, py_grad, boundary, s_range, backend=backend), ranges)


def paths_loss(px, py, limits, rnnt_type, penalty, allowed=None):
    """Minus the log of the sum over all paths, each walked by itself; ``px`` (S, T), ``py`` (S + 1,
    T) lists of floats.
    """
    s_first, t_first, s_last, t_last = limits
    scores = []

    def walk(s, t, score):
        if s == s_last and t == t_last:
            scores.append(score)
            return
        if t >= t_last or (allowed is not None and s not in allowed[t]):
            return
        walk(s, t + 1, score + py[s][t])
        if s < s_last:
            emit = score + px[s][t] + penalty * ((t_last - 1) / 2 - t)
            if rnnt_type == "regular":
                walk(s + 1, t, emit)
            elif rnnt_type == "modified":
                walk(s + 1, t + 1, emit)
            elif allowed is None or s + 1 in allowed[t]:
                walk(s + 1, t + 1, emit + py[s + 1][t])

    walk(s_first, t_first, 0.0)
    return -torch.logsumexp(torch.tensor(scores, dtype=torch.float64), 0)


def arcs(log_probs, symbols):
    """px and py as lists from (T, S + 1, C) log-probabilities."""
    py = log_probs[:, :, 0].T.tolist()
    px = [log_probs[:, s, symbol].tolist() for s, symbol in enumerate(symbols.tolist())]
    return px, py


@pytest.fixture
def tiny():
    """Three utterances of 4 frames and 3 symbols out of 5, with different boundaries."""
    generator = torch.Generator().manual_seed(7)
    boundary = torch.tensor([[0, 0, 3, 4], [0, 0, 2, 3], [1, 1, 3, 4]])
    symbols = torch.randint(1, 5, (3, 3), generator=generator)
    am = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    lm = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    return am, lm, symbols, boundary


@backends
@types
@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("bounded", [False, True])
def test_is_the_sum_over_all_paths(tiny, rnnt_type, penalty, bounded, backend):
    am, lm, symbols, boundary = tiny
    limits = boundary.tolist() if bounded else [[0, 0, 3, 4]] * 3
    common = dict(
        boundary=boundary if bounded else None,
        rnnt_type=rnnt_type,
        delay_penalty=penalty,
        reduction="none",
        backend=backend,
    )
    logits = am[:, :, None] + lm[:, None]
    joint = logits.log_softmax(-1)
    expected = torch.stack(
        [paths_loss(*arcs(joint[b], symbols[b]), limits[b], rnnt_type, penalty) for b in range(3)]
    )
    assert_close(rnnt_loss(logits, symbols, 0, **common), expected, 1e-10)
    assert_close(rnnt_loss_simple(lm, am, symbols, 0, **common), expected, 1e-10)

    unigram = lm.softmax(-1).mean((0, 1)).log()
    am_only, lm_only = (am + unigram).log_softmax(-1)[:, :, None], lm.log_softmax(-1)[:, None]
    smoothed = 0.6 * joint + 0.25 * lm_only + 0.15 * am_only
    expected = torch.stack(
        [paths_loss(*arcs(smoothed[b], symbols[b]), limits[b], rnnt_type, penalty) for b in range(3)]
    )
    assert_close(rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.15, **common), expected, 1e-10)

    ranges = torch.tensor([[0, 1], [1, 2], [1, 2], [2, 3]]).expand(3, 4, 2).contiguous()
    windows = [[0, 1], [1, 2], [1, 2], [2, 3]]
    expected = torch.stack(
        [paths_loss(*arcs(joint[b], symbols[b]), limits[b], rnnt_type, penalty, windows) for b in range(3)]
    )
    pruned_logits = torch.gather(logits, 2, ranges[..., None].expand(3, 4, 2, 5))
    assert_close_or_inf(rnnt_loss_pruned(pruned_logits, symbols, ranges, 0, **common), expected)


def assert_close_or_inf(actual, expected):
    assert torch.equal(torch.isinf(actual), torch.isinf(expected))
    assert torch.isfinite(expected).any()
    assert_close(actual[torch.isfinite(expected)], expected[torch.isfinite(expected)], 1e-10)


def losses_of(tiny, rnnt_type, backend):
    """Pairs of a function whose results are losses (3,), and its inputs."""
    am, lm, symbols, boundary = tiny
    am, lm = am.requires_grad_(), lm.requires_grad_()
    common = dict(
        boundary=boundary, rnnt_type=rnnt_type, delay_penalty=0.2, reduction="none", backend=backend
    )
    ranges = torch.tensor([[0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2, 3]]).expand(3, 4, 3).contiguous()
    generator = torch.Generator().manual_seed(8)
    full = torch.randn(3, 4, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    pruned = torch.randn(3, 4, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)

    def whole(lm, am):
        am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges, backend=backend)
        return rnnt_loss_pruned(torch.tanh(am_pruned) * lm_pruned, symbols, ranges, 0, **common)

    return [
        (lambda lm, am: rnnt_loss_simple(lm, am, symbols, 0, **common), (lm, am)),
        (lambda lm, am: rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.0, **common), (lm, am)),
        (lambda lm, am: rnnt_loss_smoothed(lm, am, symbols, 0, 0.2, 0.3, **common), (lm, am)),
        (lambda logits: rnnt_loss(logits, symbols, 0, **common), (full,)),
        (lambda logits: rnnt_loss_pruned(logits, symbols, ranges, 0, **common), (pruned,)),
        (whole, (lm, am)),
    ]


@types
def test_gradients_are_the_derivatives(tiny, rnnt_type):
    """Those of the quick back end against differences, one input after the other; those of the
    other against these.
    """
    weights = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)

    def weighted(function):
        return lambda *x: function(*x) * weights

    quick, other = losses_of(tiny, rnnt_type, "numba"), losses_of(tiny, rnnt_type, "torch")
    for (function, inputs), (same, _) in zip(quick, other):
        assert torch.autograd.gradcheck(weighted(function), inputs, eps=1e-6, atol=1e-7, rtol=1e-5)
        for row in range(3):
            expected = torch.autograd.grad(function(*inputs)[row], inputs)
            for actual, wanted in zip(torch.autograd.grad(same(*inputs)[row], inputs), expected):
                torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-12)


@backends
def test_counts_are_the_gradients_of_the_arcs(tiny, backend):
    am, lm, symbols, boundary = tiny
    _, (px_grad, py_grad) = rnnt_loss_simple(
        lm, am, symbols, 0, boundary, reduction="none", return_grad=True, backend=backend
    )
    # every path takes S_b symbols and T_b blanks
    assert_close(px_grad.sum((1, 2)), (boundary[:, 2] - boundary[:, 0]).double(), 1e-12)
    assert_close(py_grad.sum((1, 2)), (boundary[:, 3] - boundary[:, 1]).double(), 1e-12)
    logits = (am[:, :, None] + lm[:, None]).requires_grad_()
    rnnt_loss(logits, symbols, 0, boundary, reduction="sum", backend=backend).backward()
    blank_share = logits.detach().softmax(-1)[..., 0]
    total = py_grad.transpose(1, 2).clone()
    total[:, :, :3] += px_grad.transpose(1, 2)[:, :4]
    assert_close(total * blank_share - py_grad.transpose(1, 2), logits.grad[..., 0], 1e-10)


@types
@pytest.mark.parametrize("seed", range(4))
def test_back_ends_agree(rnnt_type, seed):
    generator = torch.Generator().manual_seed(seed)
    batch, frames, num, columns, s_range = [
        (1, 1, 1, 2, 2),
        (3, 20, 7, 9, 3),
        (2, 17, 17, 33, 5),
        (5, 33, 4, 300, 5),
    ][seed]
    symbols = torch.randint(0, columns, (batch, num), generator=generator)
    ends = [torch.randint(1, most + 1, (batch,), generator=generator) for most in (num, frames)]
    boundary = torch.stack([torch.zeros_like(ends[0]), torch.zeros_like(ends[0]), *ends], 1)
    inputs = [torch.randn(batch, length, columns, generator=generator) * 2 for length in (frames, num + 1)]
    results, ranges = {}, None
    for backend in BACKENDS:
        am, lm = (x.clone().requires_grad_() for x in inputs)
        common = dict(
            boundary=boundary, rnnt_type=rnnt_type, delay_penalty=0.01, reduction="none", backend=backend
        )
        simple, (px_grad, py_grad) = rnnt_loss_smoothed(
            lm, am, symbols, 1, 0.2, 0.1, return_grad=True, **common
        )
        windows = [
            get_rnnt_prune_ranges(px_grad, py_grad, boundary, s_range, backend=name) for name in BACKENDS
        ]
        assert torch.equal(*windows)
        ranges = windows[0] if backend == "torch" else ranges
        am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges, backend=backend)
        pruned = rnnt_loss_pruned(torch.tanh(am_pruned + lm_pruned), symbols, ranges, 1, **common)
        losses = torch.stack((simple, pruned))
        losses[torch.isfinite(losses)].sum().backward()
        results[backend] = [losses, px_grad, py_grad, am_pruned, lm_pruned, am.grad, lm.grad]
    for one, other in zip(*results.values()):
        finite = torch.isfinite(other)
        assert torch.equal(one[~finite], other[~finite])
        assert_close(one[finite], other.detach()[finite], 5e-5)


@backends
def test_pruning_with_different_widths(backend):
    am, lm = torch.randn(2, 6, 8, requires_grad=True), torch.randn(2, 4, 3, requires_grad=True)
    ranges = torch.randint(0, 4, (2, 6, 2))
    am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges, backend=backend)
    assert torch.equal(am_pruned, am[:, :, None].expand(2, 6, 2, 8))
    assert all(
        torch.equal(lm_pruned[b, t, r], lm[b, ranges[b, t, r]])
        for b in range(2)
        for t in range(6)
        for r in range(2)
    )
    weights = torch.randn(2, 6, 2, 8), torch.randn(2, 6, 2, 3)
    ((am_pruned * weights[0]).sum() + (lm_pruned * weights[1]).sum()).backward()
    assert_close(am.grad, weights[0].sum(2), 1e-6)
    one_hot = torch.nn.functional.one_hot(ranges, 4).float()
    assert_close(lm.grad, torch.einsum("btrs,btrc->bsc", one_hot, weights[1]), 1e-6)


def test_windows_follow_a_path():
    generator = torch.Generator().manual_seed(3)
    for rnnt_type, most in (("regular", 3), ("modified", 1)):
        lm, am = (
            torch.randn(6, 16, 9, generator=generator) * 4,
            torch.randn(6, 30, 9, generator=generator) * 4,
        )
        symbols = torch.randint(1, 9, (6, 15), generator=generator)
        boundary = torch.tensor([[0, 0, 15 - b, 30 - 2 * b] for b in range(6)])
        loss, counts = rnnt_loss_simple(
            lm, am, symbols, 0, boundary, rnnt_type, reduction="none", return_grad=True
        )
        ranges = get_rnnt_prune_ranges(*counts, boundary, 4)
        begins = ranges[:, :, 0]
        steps = begins.diff(dim=1)
        assert (begins[:, 0] == 0).all() and steps.min() >= 0 and steps.max() <= most and ranges.max() <= 15
        logits = torch.gather((am[:, :, None] + lm[:, None]), 2, ranges[..., None].expand(-1, -1, -1, 9))
        pruned = rnnt_loss_pruned(logits, symbols, ranges, 0, boundary, rnnt_type, reduction="none")
        # fewer paths, so a larger loss, yet some paths
        assert torch.isfinite(pruned).all() and (pruned >= loss - 1e-3).all()
