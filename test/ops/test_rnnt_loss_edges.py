"""RNN-T losses where there is no label, no path, no number, no utterance; and what is refused."""

import pytest
import torch

import asr_core.ops.rnnt_loss as rnnt_loss_module
from asr_core.ops.rnnt import arguments
from asr_core.ops.rnnt_loss import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

BACKENDS = ["torch", "numba"]
backends = pytest.mark.parametrize("backend", BACKENDS)
types = pytest.mark.parametrize("rnnt_type", ["regular", "modified", "constrained"])
INF, NAN = float("inf"), float("nan")


def batch(frames=6, num=4, columns=7, size=3):
    generator = torch.Generator().manual_seed(11)
    am, lm = (
        torch.randn(size, frames, columns, generator=generator),
        torch.randn(size, num + 1, columns, generator=generator),
    )
    symbols = torch.randint(1, columns, (size, num), generator=generator)
    return am, lm, symbols, torch.tensor([[0, 0, num, frames]] * size)


def losses_and_gradients(
    am, lm, symbols, boundary, rnnt_type="regular", backend="torch", am_scale=0.0, s_range=3
):
    """All four losses (4, B) of the same inputs, and the gradients of their weighted sum."""
    am, lm = am.clone().requires_grad_(), lm.clone().requires_grad_()
    common = dict(boundary=boundary, rnnt_type=rnnt_type, reduction="none", backend=backend)
    smoothed, counts = rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, am_scale, return_grad=True, **common)
    ranges = get_rnnt_prune_ranges(*counts, boundary, s_range, backend=backend)
    pruned_inputs = do_rnnt_pruning(am, lm, ranges, backend=backend)
    pruned = rnnt_loss_pruned(sum(pruned_inputs), symbols, ranges, 0, **common)
    simple = rnnt_loss_simple(lm, am, symbols, 0, **common)
    full = rnnt_loss(am[:, :, None] + lm[:, None], symbols, 0, **common)
    losses = torch.stack((smoothed, pruned, simple, full))
    losses.backward(torch.arange(1.0, 5.0)[:, None].expand_as(losses))
    return losses.detach(), am.grad, lm.grad, counts


@backends
@types
def test_no_symbols(rnnt_type, backend):
    am, lm, _, _ = batch(num=0)
    symbols, boundary = (
        torch.zeros(3, 0, dtype=torch.int64),
        torch.tensor([[0, 0, 0, 6], [0, 0, 0, 2], [0, 0, 0, 0]]),
    )
    losses, am_grad, lm_grad, (px_grad, py_grad) = losses_and_gradients(
        am, lm, symbols, boundary, rnnt_type, backend
    )
    blanks = (am + lm).log_softmax(-1)[:, :, 0]
    expected = -torch.stack([blanks[b, : boundary[b, 3]].sum() for b in range(3)])
    for row in losses[1:]:
        torch.testing.assert_close(row, expected)
    assert px_grad.shape == (3, 0, 7 if rnnt_type == "regular" else 6)
    assert torch.equal(py_grad.sum((1, 2)), boundary[:, 3].float())
    assert torch.isfinite(am_grad).all() and torch.isfinite(lm_grad).all() and (am_grad[2] == 0).all()


@backends
@types
def test_no_symbols_in_one_utterance(rnnt_type, backend):
    am, lm, symbols, boundary = batch()
    boundary[1, 2] = 0
    losses, am_grad, _, _ = losses_and_gradients(am, lm, symbols, boundary, rnnt_type, backend)
    expected = -(am[1] + lm[1, :1]).log_softmax(-1)[:, 0].sum()
    torch.testing.assert_close(losses[1:, 1], expected.expand(3))
    assert torch.isfinite(losses).all() and (am_grad[1] != 0).any()


@backends
@pytest.mark.parametrize("rnnt_type", ["modified", "constrained"])
def test_more_symbols_than_frames(rnnt_type, backend):
    am, lm, symbols, boundary = batch()
    boundary[1] = torch.tensor([0, 0, 4, 3])
    losses, am_grad, lm_grad, counts = losses_and_gradients(am, lm, symbols, boundary, rnnt_type, backend)
    assert (losses[:, 1] == INF).all() and torch.isfinite(losses[:, ::2]).all()
    assert (am_grad[1] == 0).all() and (lm_grad[1] == 0).all() and all((x[1] == 0).all() for x in counts)
    alone = [0, 2]
    others = losses_and_gradients(am[alone], lm[alone], symbols[alone], boundary[alone], rnnt_type, backend)
    torch.testing.assert_close(others[0], losses[:, alone])
    torch.testing.assert_close(others[1], am_grad[alone])


@backends
def test_more_symbols_than_frames_of_a_regular_lattice(backend):
    am, lm, symbols, boundary = batch(frames=2)
    losses, am_grad, _, _ = losses_and_gradients(am, lm, symbols, boundary, "regular", backend)
    assert torch.isfinite(losses).all() and torch.isfinite(am_grad).all()
    # no window of 2 contexts reaches context 4 in two frames: it is made wider
    losses, _, _, _ = losses_and_gradients(am, lm, symbols, boundary, "regular", backend, s_range=2)
    assert torch.isfinite(losses).all()


@backends
def test_no_frames(backend):
    am, lm, symbols, boundary = batch()
    boundary[0], boundary[1] = torch.tensor([0, 0, 2, 0]), torch.tensor([0, 0, 0, 0])
    losses, am_grad, _, _ = losses_and_gradients(am, lm, symbols, boundary, "regular", backend)
    assert (losses[:, 0] == INF).all() and (losses[:, 1] == 0).all() and torch.isfinite(losses[:, 2]).all()
    assert (am_grad[:2] == 0).all() and torch.isfinite(am_grad).all()


@backends
@types
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("place", ["am", "lm"])
@pytest.mark.parametrize("am_scale", [0.0, 0.1])
def test_one_bad_number(value, place, rnnt_type, backend, am_scale):
    am, lm, symbols, boundary = batch()
    clean = losses_and_gradients(am, lm, symbols, boundary, rnnt_type, backend, am_scale)
    {"am": am, "lm": lm}[place][1, 2, 3] = value
    losses, am_grad, lm_grad, counts = losses_and_gradients(
        am, lm, symbols, boundary, rnnt_type, backend, am_scale
    )
    # the window's loss is NaN only if its window meets the bad number
    assert torch.isnan(losses[[0, 2, 3], 1]).all()
    assert torch.isfinite(losses[:, ::2]).all()
    assert all((x[1] == 0).all() for x in counts)
    assert torch.isfinite(am_grad[::2]).all() and torch.isfinite(lm_grad[::2]).all()
    if am_scale == 0.0:
        torch.testing.assert_close(losses[:, ::2], clean[0][:, ::2])
        torch.testing.assert_close(am_grad[::2], clean[1][::2])
        torch.testing.assert_close(lm_grad[::2], clean[2][::2])


@backends
def test_gradient_of_a_loss_that_is_not_a_number_is_zero(backend):
    am, lm, symbols, boundary = batch()
    lm[1, 2, 3] = NAN
    am, lm = am.requires_grad_(), lm.requires_grad_()
    logits = (am[:, :, None] + lm[:, None]).detach().requires_grad_()
    loss = rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.0, boundary, reduction="sum", backend=backend)
    loss = loss + rnnt_loss(logits, symbols, 0, boundary, reduction="sum", backend=backend)
    assert torch.isnan(loss)
    loss.backward()
    for grad in (am.grad, lm.grad, logits.grad):
        assert (grad[1] == 0).all() and torch.isfinite(grad).all() and (grad[0] != 0).any()


@backends
@types
def test_what_lies_outside_the_boundary_does_not_matter(rnnt_type, backend):
    am, lm, symbols, boundary = batch()
    boundary[1] = torch.tensor([0, 0, 3, 4])
    clean = losses_and_gradients(am, lm, symbols, boundary, rnnt_type, backend)
    am[1, 4:], lm[1, 4:] = NAN, INF
    dirty = losses_and_gradients(am, lm, symbols, boundary, rnnt_type, backend)
    torch.testing.assert_close(clean[0], dirty[0])
    # the gradient of sum(pruned inputs) is the joiner's business; here it only adds zeros
    torch.testing.assert_close(clean[1], dirty[1])
    torch.testing.assert_close(clean[2], dirty[2])
    assert (dirty[1][1, 4:] == 0).all() and (dirty[2][1, 4:] == 0).all()


@backends
@types
def test_impossible_labels(rnnt_type, backend):
    am, lm, symbols, boundary = batch()
    am[
        1, 2, 0
    ] = (
        -INF
    )  # no blank on frame 2 of the second utterance: a regular path cannot pass, another only by a symbol
    am[2, :, symbols[2, 1]] = -INF  # the second symbol of the third is nowhere possible
    losses, am_grad, lm_grad, _ = losses_and_gradients(
        am, lm, symbols, boundary, rnnt_type, backend, s_range=5
    )
    assert torch.isfinite(losses[:, 0]).all() and (losses[:, 2] == INF).all()
    assert torch.isfinite(losses[:, 1]).all() if rnnt_type == "modified" else (losses[:, 1] == INF).all()
    assert torch.isfinite(am_grad).all() and torch.isfinite(lm_grad).all() and (am_grad[2] == 0).all()
    assert am_grad[1, 2, 0] == 0


@backends
def test_nothing_but_minus_infinity_is_no_distribution(backend):
    am, lm, symbols, boundary = batch()
    am[1, 2] = -INF
    losses, am_grad, _, _ = losses_and_gradients(am, lm, symbols, boundary, "regular", backend)
    assert (
        torch.isnan(losses[[0, 2, 3], 1]).all()
        and torch.isfinite(losses[:, ::2]).all()
        and torch.isfinite(am_grad[::2]).all()
    )


@backends
def test_scores_far_apart(backend):
    am, lm, symbols, boundary = batch()
    losses, am_grad, lm_grad, _ = losses_and_gradients(
        am * 300, lm * 300, symbols, boundary, "regular", backend
    )
    assert torch.isfinite(losses).all() and torch.isfinite(am_grad).all() and torch.isfinite(lm_grad).all()


@backends
@types
def test_empty_batch(rnnt_type, backend):
    am, lm = torch.zeros(0, 6, 7, requires_grad=True), torch.zeros(0, 5, 7, requires_grad=True)
    symbols, boundary = torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.int64)
    common = dict(boundary=boundary, rnnt_type=rnnt_type, backend=backend)
    loss, counts = rnnt_loss_smoothed(lm, am, symbols, 0, reduction="none", return_grad=True, **common)
    assert loss.shape == (0,)
    ranges = get_rnnt_prune_ranges(*counts, boundary, 3, backend=backend)
    assert ranges.shape == (0, 6, 3)
    logits = sum(do_rnnt_pruning(am, lm, ranges, backend=backend))
    total = rnnt_loss_pruned(logits, symbols, ranges, 0, reduction="sum", **common) + loss.sum()
    total.backward()
    assert total == 0 and am.grad.shape == am.shape
    assert torch.isnan(rnnt_loss_simple(lm, am, symbols, 0, **common))


@backends
def test_reductions(backend):
    am, lm, symbols, boundary = batch()
    losses = rnnt_loss_simple(lm, am, symbols, 0, boundary, reduction="none", backend=backend)
    assert rnnt_loss_simple(lm, am, symbols, 0, boundary, backend=backend) == losses.mean()
    assert rnnt_loss_simple(lm, am, symbols, 0, boundary, reduction="sum", backend=backend) == losses.sum()


def test_half_precision_and_strides():
    am, lm, symbols, boundary = batch()
    expected = losses_and_gradients(am, lm, symbols, boundary, backend="numba")
    turned = [x.transpose(0, 2).contiguous().transpose(0, 2) for x in (am, lm)]
    for one, other in zip(
        losses_and_gradients(*turned, symbols.int(), boundary.int(), backend="numba")[:3], expected
    ):
        torch.testing.assert_close(one, other)
    half, am_grad, _, _ = losses_and_gradients(
        am.bfloat16(), lm.bfloat16(), symbols, boundary, backend="auto"
    )
    assert half.dtype == torch.float32 and am_grad.dtype == torch.bfloat16
    torch.testing.assert_close(half, expected[0], rtol=0.02, atol=0.1)


@backends
def test_autocast_changes_nothing(backend):
    inputs = batch()
    expected = losses_and_gradients(*inputs, backend=backend, am_scale=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = losses_and_gradients(*inputs, backend=backend, am_scale=0.1)
    for one, other in zip(actual[:3], expected):
        assert torch.equal(one, other)


def test_auto_does_without_numba(monkeypatch):
    am, lm, symbols, boundary = batch()
    chosen = []
    monkeypatch.setattr(
        rnnt_loss_module.Smoothed,
        "apply",
        lambda *args: (chosen.append(args[-1].__name__), (am.sum(), None, None))[1],
    )
    rnnt_loss_simple(lm, am, symbols, 0)
    monkeypatch.setattr(arguments, "HAS_NUMBA", False)
    rnnt_loss_simple(lm, am, symbols, 0)
    assert [name.split(".")[-1] for name in chosen] == ["numba_backend", "torch_backend"]


def test_refusals():
    am, lm, symbols, boundary = batch()
    wrong = [
        dict(symbols=symbols[:, :3]),
        dict(symbols=symbols - 10),
        dict(symbols=symbols + 7),
        dict(termination_symbol=7),
        dict(termination_symbol=-1),
        dict(boundary=boundary[:2]),
        dict(boundary=boundary + 1),
        dict(boundary=boundary - 1),
        dict(boundary=torch.tensor([[3, 0, 2, 6]] * 3)),
        dict(rnnt_type="other"),
        dict(reduction="median"),
        dict(backend="cuda"),
        dict(lm=lm[:2]),
        dict(am=am[..., :3]),
    ]
    good = dict(lm=lm, am=am, symbols=symbols, termination_symbol=0, boundary=boundary)
    rnnt_loss_simple(**good)
    for change in wrong:
        with pytest.raises(ValueError):
            rnnt_loss_simple(**{**good, **change})
    ranges = torch.zeros(3, 6, 2, dtype=torch.int64)
    for bad in (ranges + 5, ranges - 1, ranges[:, :5]):
        with pytest.raises(ValueError):
            rnnt_loss_pruned(torch.zeros(3, 6, 2, 7), symbols, bad, 0)
        with pytest.raises(ValueError):
            do_rnnt_pruning(am, lm, bad)
    with pytest.raises(ValueError, match="s_range"):
        get_rnnt_prune_ranges(torch.zeros(3, 4, 7), torch.zeros(3, 5, 6), boundary, 1)
    with pytest.raises(ValueError, match="numba"):
        rnnt_loss_simple(lm.bfloat16().to("meta"), am.to("meta"), symbols, 0, backend="numba")
