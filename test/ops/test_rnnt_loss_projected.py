"""The full RNN-T loss from projections against that of all logits and the sum over paths; its
memory; FastEmit in all losses.
"""

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from asr_core.ops.rnnt_loss import (
    do_rnnt_pruning,
    rnnt_loss,
    rnnt_loss_projected,
    rnnt_loss_pruned,
    rnnt_loss_smoothed,
    tanh_of_sum,
)
from asr_core.utils.errors import UserError

BACKENDS = ["torch", "numba"]
backends = pytest.mark.parametrize("backend", BACKENDS)
types = pytest.mark.parametrize("rnnt_type", ["regular", "modified", "constrained"])
factorised = pytest.mark.parametrize("factorised", [False, True])
COMBINE = [
    tanh_of_sum,
    lambda am, lm: torch.tanh(am * lm),
    lambda am, lm: torch.sigmoid(am[..., :3]) * torch.tanh(lm[..., 3:]),
]


def given(batch=3, frames=5, num=3, width=6, columns=7, hidden=6, seed=0, dtype=torch.float64):
    """am, lm, weight, bias, symbols."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, frames, width), (batch, num + 1, width), (columns, hidden), (columns,)]
    inputs = [torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    return inputs, torch.randint(1, columns, (batch, num), generator=generator)


def all_logits(am, lm, weight, bias, combine, factorised):
    logits = (
        combine(am[:, :, None].expand(-1, -1, lm.shape[1], -1), lm[:, None].expand(-1, am.shape[1], -1, -1))
        @ weight.t()
        + bias
    )
    if not factorised:
        return logits
    blank = logits[..., :1]
    return torch.cat((F.logsigmoid(blank), logits[..., 1:].log_softmax(-1) + F.logsigmoid(-blank)), dim=-1)


def arc_scores(logits, symbols):
    """Log-probabilities of symbols (B, T, S) and blanks (B, T, S + 1)."""
    log_probs = logits.log_softmax(-1)
    labels = symbols[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    return log_probs[:, :, :-1].gather(3, labels).squeeze(3), log_probs[..., 0]


def sum_over_paths(px, py):
    """The loss of one regular lattice (T, S), (T, S + 1): every order of its S symbols and T - 1
    blanks, then the last blank.
    """
    num_frames, num = px.shape
    paths = []
    for places in itertools.combinations(range(num_frames - 1 + num), num):
        t = s = 0
        score = py[num_frames - 1, num]
        for step in range(num_frames - 1 + num):
            score = score + (px[t, s] if step in places else py[t, s])
            t, s = (t, s + 1) if step in places else (t + 1, s)
        paths.append(score)
    return -torch.logsumexp(torch.stack(paths), 0)


@backends
@types
@factorised
@pytest.mark.parametrize("combine", COMBINE, ids=["add", "multiply", "halves"])
def test_equals_the_loss_of_all_logits(rnnt_type, factorised, combine, backend):
    inputs, symbols = given(hidden=3 if combine is COMBINE[2] else 6)
    boundary = torch.tensor([[0, 0, 3, 5], [0, 0, 2, 4], [1, 1, 3, 5]])
    options = dict(
        boundary=boundary,
        rnnt_type=rnnt_type,
        delay_penalty=0.1,
        fast_emit_lambda=0.2,
        reduction="none",
        backend=backend,
    )
    expected = rnnt_loss(all_logits(*inputs, combine, factorised), symbols, 0, **options)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    wanted = torch.autograd.grad((weights * expected).sum(), inputs)
    for block_cells in (1, 4, None):
        own = dict(combine=combine, factorised_blank=factorised, block_cells=block_cells)
        loss = rnnt_loss_projected(*inputs, symbols, 0, **own, **options)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        for actual, grad in zip(torch.autograd.grad((weights * loss).sum(), inputs), wanted):
            torch.testing.assert_close(actual, grad, rtol=1e-10, atol=1e-12)


@backends
@factorised
def test_equals_the_sum_over_paths(factorised, backend):
    for frames, num in itertools.product(range(1, 5), range(5)):
        inputs, symbols = given(batch=1, frames=frames, num=num)
        px, py = arc_scores(all_logits(*inputs, tanh_of_sum, factorised), symbols)
        loss = rnnt_loss_projected(*inputs, symbols, 0, factorised_blank=factorised, backend=backend)
        torch.testing.assert_close(loss, sum_over_paths(px[0], py[0]), rtol=1e-12, atol=1e-12)


@backends
@factorised
def test_gradients_are_the_derivatives(factorised, backend):
    inputs, symbols = given(batch=2, frames=4)
    boundary = torch.tensor([[0, 0, 3, 4], [0, 1, 2, 3]])

    def loss(*inputs):
        options = dict(factorised_blank=factorised, block_cells=7, reduction="none", backend=backend)
        return rnnt_loss_projected(*inputs, symbols, 0, boundary, **options)

    assert torch.autograd.gradcheck(loss, inputs)


def fast_emit_gradient(px, py, weight, inputs):
    """The gradient of a lattice's loss with FastEmit: symbols' parts count ``1 + weight`` times."""
    counts = torch.autograd.grad(sum_over_paths(px, py), (px, py), retain_graph=True)
    return torch.autograd.grad(
        ((1 + weight) * counts[0] * px).sum() + (counts[1] * py).sum(), inputs, retain_graph=True
    )


@backends
def test_fast_emit(backend):
    inputs, symbols = given(batch=1, frames=4, hidden=6)
    am, lm = (torch.randn(1, length, 7, dtype=torch.float64, requires_grad=True) for length in (4, 4))
    options = dict(fast_emit_lambda=0.7, backend=backend)
    plain, ranges = dict(backend=backend), torch.arange(4).expand(1, 4, 4).contiguous()
    simple = am[:, :, None] + lm[:, None]
    joint = simple.log_softmax(-1)
    smooth = (
        0.6 * joint
        + 0.25 * lm.log_softmax(-1)[:, None]
        + 0.15 * (am + lm.softmax(-1).mean((0, 1)).log()).log_softmax(-1)[:, :, None]
    )
    labels = symbols[:, None, :, None].expand(-1, 4, -1, 1)
    smooth_arcs = smooth[:, :, :-1].gather(3, labels).squeeze(3), smooth[..., 0]
    logits = all_logits(*inputs, tanh_of_sum, False)

    def pruned(am, lm, **options):
        am_pruned, lm_pruned = do_rnnt_pruning(am, lm, ranges)
        return rnnt_loss_pruned(am_pruned + lm_pruned, symbols, ranges, 0, **options)

    cases = [
        (lambda **o: rnnt_loss(logits, symbols, 0, **o), arc_scores(logits, symbols), inputs),
        (lambda **o: rnnt_loss_projected(*inputs, symbols, 0, **o), arc_scores(logits, symbols), inputs),
        (lambda **o: pruned(am, lm, **o), arc_scores(simple, symbols), (am, lm)),
        (lambda **o: rnnt_loss_smoothed(lm, am, symbols, 0, 0.25, 0.15, **o), smooth_arcs, (am, lm)),
    ]
    for loss, (px, py), given_to in cases:
        assert torch.equal(loss(**options), loss(**plain))
        wanted = fast_emit_gradient(px[0], py[0], 0.7, given_to)
        for actual, grad in zip(torch.autograd.grad(loss(**options), given_to, retain_graph=True), wanted):
            torch.testing.assert_close(actual, grad, rtol=1e-9, atol=1e-12)


class LargestTensor(TorchDispatchMode):
    """Watches for the tensor with most elements that an operation makes (views do not count)."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().size() // x.element_size())
        return out


@backends
def test_no_tensor_grows_with_cells_times_vocabulary(backend):
    batch, frames, num, width, columns = 2, 40, 15, 8, 300
    inputs, symbols = given(batch, frames, num, width, columns, width, dtype=torch.float32)
    cells = batch * frames * (num + 1)
    with LargestTensor() as lean:
        rnnt_loss_projected(*inputs, symbols, 0, block_cells=64, backend=backend).backward()
    lean_grads = [x.grad.clone() for x in inputs]
    for x in inputs:
        x.grad = None
    with LargestTensor() as all_at_once:
        rnnt_loss(all_logits(*inputs, tanh_of_sum, False), symbols, 0, backend=backend).backward()
    assert all_at_once.numel >= cells * columns
    assert lean.numel <= max(64 * columns, 3 * cells)  # a block of logits, or the scores of all cells
    for actual, x in zip(lean_grads, inputs):
        torch.testing.assert_close(actual, x.grad, rtol=1e-4, atol=1e-5)


@backends
def test_half_precision_is_computed_in_float32(backend):
    inputs, symbols = given(dtype=torch.float32)
    half = [x.detach().bfloat16().requires_grad_() for x in inputs]
    exact = [x.detach().float().requires_grad_() for x in half]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = rnnt_loss_projected(*half, symbols, 0, backend=backend)
    expected = rnnt_loss_projected(*exact, symbols, 0, backend=backend)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)
    loss.backward()
    expected.backward()
    for x, y in zip(half, exact):
        assert torch.equal(x.grad, y.grad.bfloat16())


@backends
def test_hard_cases_do_not_touch_other_utterances(backend):
    inputs, symbols = given(batch=4)
    boundary = torch.tensor([[0, 0, 3, 5], [0, 0, 0, 5], [0, 0, 2, 0], [0, 0, 3, 5]])
    with torch.no_grad():
        inputs[0][3, 2, 1] = float("nan")
        inputs[0][1, 4], inputs[1][1, 1:] = 2.0, float("nan")  # contexts outside the boundary
    loss = rnnt_loss_projected(*inputs, symbols, 0, boundary, reduction="none", backend=backend)
    assert loss[2] == float("inf") and loss[3].isnan() and loss[:2].isfinite().all()
    grads = torch.autograd.grad(loss.sum(), inputs)
    alone = torch.autograd.grad(
        rnnt_loss_projected(
            *(x[:2] for x in inputs[:2]),
            *inputs[2:],
            symbols[:2],
            0,
            boundary[:2],
            reduction="sum",
            backend=backend,
        ),
        inputs,
    )
    for actual, wanted in zip(grads, alone):
        torch.testing.assert_close(actual, wanted)
    empty = rnnt_loss_projected(
        inputs[0][:0], inputs[1][:0], *inputs[2:], symbols[:0], 0, reduction="sum", backend=backend
    )
    assert empty == 0


def test_unfit_arguments_are_refused():
    (am, lm, weight, bias), symbols = given()
    for arguments in [
        (am, lm[:, :-1], weight, bias),
        (am[..., :-1], lm, weight, bias),
        (am, lm, weight, bias[:-1]),
    ]:
        with pytest.raises(ValueError, match="must be|must have"):
            rnnt_loss_projected(*arguments, symbols, 0)
    with pytest.raises(ValueError, match="fast_emit_lambda must be at least 0"):
        rnnt_loss_projected(am, lm, weight, bias, symbols, 0, fast_emit_lambda=-0.1)


def test_equals_torchaudio():
    functional = pytest.importorskip("torchaudio.functional")
    if not hasattr(functional, "rnnt_loss"):
        pytest.skip("this version of torchaudio has no rnnt_loss")
    inputs, symbols = given(batch=3, frames=9, dtype=torch.float32)
    boundary = torch.tensor([[0, 0, 2, 8], [0, 0, 1, 7], [0, 0, 0, 4]])
    logits = all_logits(*inputs, tanh_of_sum, False)
    expected = rnnt_loss(logits, symbols, 0, boundary, reduction="none", backend="torchaudio")
    loss = rnnt_loss_projected(*inputs, symbols, 0, boundary, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for actual, wanted in zip(
        torch.autograd.grad(loss.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)
    ):
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


def test_what_torchaudio_cannot_compute_is_refused():
    inputs, symbols = given(dtype=torch.float32)
    logits = all_logits(*inputs, tanh_of_sum, False)
    refused = [
        {"rnnt_type": "modified"},
        {"delay_penalty": 0.1},
        {"fast_emit_lambda": 0.1},
        {"boundary": torch.tensor([[0, 1, 3, 5]] * 3)},
        {"boundary": torch.tensor([[0, 0, 0, 0]] * 3)},
    ]
    for options in refused:
        with pytest.raises(ValueError, match="back end torchaudio"):
            rnnt_loss(logits, symbols, 0, backend="torchaudio", **options)
    with pytest.raises(ValueError, match="back end torchaudio computes in float32"):
        rnnt_loss(logits.double(), symbols, 0, backend="torchaudio")
    with pytest.raises(ValueError, match="only computes rnnt_loss"):
        rnnt_loss_projected(*inputs, symbols, 0, backend="torchaudio")


def test_torchaudio_without_the_loss(monkeypatch):
    inputs, symbols = given(dtype=torch.float32)
    logits = all_logits(*inputs, tanh_of_sum, False)
    for module, message in (
        (None, "pip install"),
        (SimpleNamespace(functional=SimpleNamespace()), "no RNN-T loss any more"),
    ):
        monkeypatch.setitem(sys.modules, "torchaudio", module)
        with pytest.raises(UserError, match=message):
            rnnt_loss(logits, symbols, 0, backend="torchaudio")
