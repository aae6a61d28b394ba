"""Triton's kernels of the RNN-T losses, in its interpreter, against the torch back end in float64."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from asr_core.models import transducer_loss
from asr_core.models.joiner import Joiner
from asr_core.ops import rnnt_loss as rnnt
from asr_core.ops.gpu import dispatch
from asr_core.ops.rnnt import torch_backend, triton_backend
from asr_core.ops.rnnt.arguments import backend_for

TYPES = ["regular", "modified", "constrained"]
types = pytest.mark.parametrize("rnnt_type", TYPES)
HALF = {torch.bfloat16: 2e-2, torch.float16: 3e-3}
# all of it; a part from the middle; no symbols; more symbols than frames; no frames
BOUNDARY = torch.tensor([[0, 0, 3, 5], [1, 2, 3, 4], [0, 0, 0, 3], [0, 0, 3, 2], [0, 0, 1, 0]])
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 1.5, 1.0])


def given(*shapes, seed=0):
    """Normal numbers, float32."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def labels(num=4, columns=7):
    return torch.randint(1, columns, (len(BOUNDARY), num), generator=torch.Generator().manual_seed(1))


def both(function, inputs):
    """Results and gradients of the kernels in float32 and of the torch back end in float64."""
    for backend, dtype in (("triton", torch.float32), ("torch", torch.float64)):
        own = [x.to(dtype).requires_grad_() for x in inputs]
        loss, *others = function(backend, *own)
        finite = loss.isfinite()
        grads = torch.autograd.grad((loss * WEIGHTS.to(dtype))[finite].sum(), own)
        yield [loss, *others, *grads]


def assert_close(got, want, tolerance=1e-5):
    assert len(got) == len(want) > 1
    for a, b in zip(got, want):
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


@types
@pytest.mark.parametrize("lm_scale, am_scale", [(0.0, 0.0), (0.25, 0.1), (0.5, 0.5)])
def test_smoothed_loss(rnnt_type, lm_scale, am_scale):
    def loss(backend, am, lm):
        options = dict(delay_penalty=0.1, fast_emit_lambda=0.1, reduction="none", return_grad=True)
        loss, counts = rnnt.rnnt_loss_smoothed(
            lm, am, labels(), 0, lm_scale, am_scale, BOUNDARY, rnnt_type, backend=backend, **options
        )
        ranges = rnnt.get_rnnt_prune_ranges(*counts, BOUNDARY, 2, backend=backend)
        return loss, *counts, ranges

    got, want = both(loss, given((5, 5, 7), (5, 5, 7)))
    assert_close(got, want)
    assert want[0].isfinite().tolist() == [True, True, True, rnnt_type == "regular", False]


@types
def test_pruned_loss(rnnt_type):
    ranges = torch.tensor([0, 0, 1, 2, 2]).repeat(5, 1)[:, :, None] + torch.arange(2)

    def loss(backend, logits):
        options = dict(delay_penalty=0.1, fast_emit_lambda=0.1, reduction="none", backend=backend)
        return [rnnt.rnnt_loss_pruned(logits, labels(), ranges, 0, BOUNDARY, rnnt_type, **options)]

    assert_close(*both(loss, given((5, 5, 2, 7))))


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(dtype):
    (logits,) = given((5, 5, 5, 7))
    half = logits.to(dtype).requires_grad_()
    exact = half.detach().double().requires_grad_()
    losses = [rnnt.rnnt_loss(x, labels(), 0, BOUNDARY, reduction="none") for x in (half, exact)]
    assert losses[0].dtype == torch.float32 and backend_for("auto", half) is triton_backend
    torch.testing.assert_close(losses[0].double(), losses[1], rtol=1e-5, atol=1e-5)
    for loss in losses:
        loss[:4].sum().backward()
    torch.testing.assert_close(half.grad.double(), exact.grad, rtol=HALF[dtype], atol=HALF[dtype])


def test_sum_over_paths():
    for frames, num in itertools.product(range(1, 4), range(3)):
        (logits,) = given((1, frames, num + 1, 5))
        symbols = torch.arange(1, num + 1)[None]
        scores = logits[0].double().log_softmax(-1)
        paths = []
        for places in itertools.combinations(range(frames - 1 + num), num):
            t = s = 0
            score = scores[frames - 1, num, 0]
            for step in range(frames - 1 + num):
                score = score + (scores[t, s, s + 1] if step in places else scores[t, s, 0])
                t, s = (t, s + 1) if step in places else (t + 1, s)
            paths.append(score)
        loss = rnnt.rnnt_loss(logits, symbols, 0, backend="triton")
        torch.testing.assert_close(loss.double(), -torch.logsumexp(torch.stack(paths), 0))


@types
def test_recursion_over_given_scores(rnnt_type):
    frames = 6 if rnnt_type == "regular" else 5

    def scores(backend, px, py):
        total, counts = rnnt.mutual_information_recursion(px, py, BOUNDARY, True, backend=backend)
        return total, *counts

    assert_close(*both(scores, given((5, 4, frames), (5, 5, 5))))


def test_what_has_no_loss_has_no_gradient_and_touches_no_other():
    (logits,) = given((5, 5, 5, 7))
    logits[1, 3, 2] = float("nan")  # visited
    logits[2, 1, 3], logits[2, 4] = float("nan"), float("inf")  # outside the boundary
    logits[3, :2, :, 0] = float("-inf")  # no path
    logits.requires_grad_()
    loss = rnnt.rnnt_loss(logits, labels(), 0, BOUNDARY, reduction="none", backend="triton")
    assert loss[1].isnan() and loss[3] == loss[4] == float("inf") and loss[[0, 2]].isfinite().all()
    loss.sum().backward()
    assert (logits.grad[[1, 3, 4]] == 0).all() and logits.grad.isfinite().all()
    clean = logits.detach().nan_to_num(0.0, 0.0, 0.0).double().requires_grad_()
    rnnt.rnnt_loss(clean, labels(), 0, BOUNDARY, reduction="none", backend="torch")[[0, 2]].sum().backward()
    torch.testing.assert_close(logits.grad[[0, 2]].double(), clean.grad[[0, 2]], rtol=1e-5, atol=1e-5)


def test_vocabularies_of_more_columns_than_a_program_has_elements():
    symbols = torch.tensor([[2099, 600]])

    def losses(backend, lm, am, logits):
        simple = rnnt.rnnt_loss_smoothed(lm, am, symbols, 700, 0.2, 0.1, reduction="none", backend=backend)
        return [(simple + rnnt.rnnt_loss(logits, symbols, 700, reduction="none", backend=backend)).expand(5)]

    assert_close(*both(losses, given((1, 3, 2100), (1, 3, 2100), (1, 3, 3, 2100))))


def test_rows_without_distribution_have_nothing():
    (x,) = given((3, 2, 5))
    x[0, 0, 1], x[1, 1], x[2, 0, 3] = float("nan"), float("-inf"), float("inf")
    x[2, 1, :4] = float("-inf")
    for got, want in zip(triton_backend.exp_rows(x), torch_backend.exp_rows(x)):
        torch.testing.assert_close(got, want, equal_nan=True)


@pytest.mark.parametrize("s_range", [2, 3, 6])
@pytest.mark.parametrize("more", [0, 1])
def test_windows_are_those_of_the_torch_back_end(s_range, more):
    symbol, blank = (x.abs() for x in given((3, 5, 37 + more), (3, 6, 37)))
    boundary = torch.tensor([[0, 0, 5, 37], [0, 0, 2, 20], [0, 0, 0, 1]])
    want = torch_backend.prune_ranges(symbol, blank, boundary, s_range)
    got = triton_backend.prune_ranges(symbol, blank, boundary, s_range)
    assert torch.equal(got, want) and got.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("frames, columns", [(9, 1), (9, 300), (400, 2)])
def test_rows_through_windows_and_back(frames, columns, dtype):
    ranges = torch.randint(0, 4, (2, frames, 3), generator=torch.Generator().manual_seed(0))
    am, lm, grad = given((2, frames, columns), (2, 4, columns), (2, frames, 3, columns))
    own = [x.to(dtype).requires_grad_() for x in (am, lm)]
    pruned = rnnt.do_rnnt_pruning(*own, ranges, backend="triton")
    assert torch.equal(pruned[0], own[0][:, :, None].expand(-1, -1, 3, -1))
    assert torch.equal(pruned[1], own[1][torch.arange(2)[:, None, None], ranges])
    got = torch.autograd.grad(pruned, own, [grad.to(dtype), grad.to(dtype)])
    want = torch_backend.sum_contexts(grad.to(dtype).double(), grad.to(dtype).double(), ranges, 4)
    assert_close(got, want, HALF.get(dtype, 1e-5))


COMBINE = {"add": rnnt.tanh_of_sum, "multiply": lambda am, lm: torch.tanh(am * lm)}


@pytest.mark.parametrize("rnnt_type, combine, factorised", [
    ("regular", "add", False), ("modified", "add", False), ("constrained", "add", True),
    ("regular", "multiply", False),
])  # fmt: skip
def test_joiner_and_loss_in_one(rnnt_type, combine, factorised):
    ranges = torch.tensor([0, 0, 1, 2, 2]).repeat(5, 1)[:, :, None] + torch.arange(2)

    def loss(backend, am, lm, weight, bias):
        options = dict(boundary=BOUNDARY, rnnt_type=rnnt_type, delay_penalty=0.1, fast_emit_lambda=0.1)
        options.update(reduction="none", backend=backend)
        if backend == "triton":
            own = dict(combine=COMBINE[combine], factorised_blank=factorised, block_cells=14)
            inputs = (am, lm, weight, bias, labels(), ranges, 0)
            return [rnnt.rnnt_loss_pruned_projected(*inputs, **own, **options)]
        hidden = COMBINE[combine](*rnnt.do_rnnt_pruning(am, lm, ranges, backend=backend))
        logits = hidden @ weight.t() + bias
        return [rnnt.rnnt_loss_pruned(logits, labels(), ranges, 0, use_hat_loss=factorised, **options)]

    assert_close(*both(loss, given((5, 5, 6), (5, 5, 6), (7, 6), (7,))))


def test_full_loss_from_projections():
    def loss(backend, am, lm, weight, bias):
        options = dict(reduction="none", backend=backend, block_cells=30)
        return [rnnt.rnnt_loss_projected(am, lm, weight, bias, labels(), 0, BOUNDARY, **options)]

    assert_close(*both(loss, given((5, 5, 6), (5, 5, 6), (7, 6), (7,))))


class Questions(TorchDispatchMode):
    """Lists operations whose answers the host waits for."""

    ASK = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(f"aten.{name}." in f"{func}." for name in self.ASK):
            self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


def test_training_asks_nothing_of_the_device(monkeypatch):
    am, lm, a, b, weight, bias = (
        x.requires_grad_() for x in given((5, 5, 7), (5, 5, 7), (5, 5, 6), (5, 5, 6), (7, 6), (7,))
    )
    boundary = BOUNDARY.clone()
    # the checks of values on the CPU are not made on a GPU
    monkeypatch.setattr("asr_core.ops.rnnt.arguments.check_within", lambda *_: None)
    monkeypatch.setattr("asr_core.ops.rnnt_loss.check_within", lambda *_: None)
    monkeypatch.setattr("asr_core.ops.rnnt.arguments.whole_boundary", lambda boundary, *_: boundary)
    monkeypatch.setattr("asr_core.ops.rnnt.pruning._least_range", lambda boundary: 2)
    with Questions() as questions:
        options = dict(boundary=boundary, reduction="none", backend="triton")
        simple, counts = rnnt.rnnt_loss_smoothed(lm, am, labels(), 0, return_grad=True, **options)
        ranges = rnnt.get_rnnt_prune_ranges(*counts, boundary, 2, backend="triton")
        inputs = (a, b, weight, bias, labels(), ranges, 0)
        pruned = rnnt.rnnt_loss_pruned_projected(*inputs, **options)
        (simple + pruned)[:4].sum().backward()
    assert not questions.asked
    with Questions() as questions:
        bool(boundary.any())
    assert questions.asked  # which the list would have shown


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("full", [False, True])
def test_autocast_multiplies_in_half_precision_and_sums_in_float32(dtype, full):
    ranges = torch.tensor([0, 0, 1, 2, 2]).repeat(5, 1)[:, :, None] + torch.arange(2)

    def function(*given):
        if full:
            return rnnt.rnnt_loss_projected(*given, labels(), 0, BOUNDARY, reduction="none")
        return rnnt.rnnt_loss_pruned_projected(*given, labels(), ranges, 0, BOUNDARY, reduction="none")

    inputs = [x.requires_grad_() for x in given((5, 5, 6), (5, 5, 6), (7, 6), (7,))]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    with torch.autocast("cpu", dtype=dtype):
        loss = function(*inputs)
    want = function(*exact)
    assert loss.dtype == torch.float32
    tolerance = HALF[dtype]
    torch.testing.assert_close(loss.double(), want, rtol=tolerance, atol=tolerance)
    own = torch.autograd.grad(loss[:3].sum(), inputs)
    for got, exactly in zip(own, torch.autograd.grad(want[:3].sum(), exact)):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exactly, rtol=2 * tolerance, atol=2 * tolerance)


def test_no_utterances_and_no_frames():
    for batch, frames in ((0, 5), (2, 0)):
        symbols = torch.ones(batch, 2, dtype=torch.int64)
        logits = torch.zeros(batch, frames, 3, 4, requires_grad=True)
        loss = rnnt.rnnt_loss(logits, symbols, 0, reduction="none", backend="triton")
        assert torch.equal(loss, torch.full((batch,), float("inf")))
        loss.sum().backward()
        assert (logits.grad == 0).all()


def test_back_end_by_device_and_type():
    assert backend_for("auto", torch.zeros(1)) is triton_backend
    assert backend_for("auto", torch.zeros(1, dtype=torch.float64)) is not triton_backend
    with pytest.raises(ValueError, match="triton computes"):
        backend_for("triton", torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("mode, kind", [("add", "classic"), ("gated", "classic"), ("add", "hat")])
def test_losses_of_a_joiner_are_those_without_kernels(mode, kind, monkeypatch):
    torch.manual_seed(0)
    joiner = Joiner(6, 5, 4, 7, mode=mode, transducer_type=kind, blank_logit_bias=0.5)
    simple = (nn.Linear(6, 7), nn.Linear(5, 7))
    inputs = given((3, 5, 6), (3, 5, 5))
    boundary = torch.tensor([[0, 0, 3, 5], [0, 0, 2, 5], [0, 0, 0, 3]])
    arguments = transducer_loss.LossArguments(
        boundary=boundary, termination_symbol=0, reduction="none", delay_penalty=0.1, fast_emit_lambda=0.1
    )
    results = []
    for usable in (True, False):
        if not usable:
            monkeypatch.setattr(dispatch, "usable", lambda *_: False)
        own = [x.clone().requires_grad_() for x in inputs]
        lattice = transducer_loss.LatticeInputs(own[1], labels()[:3], arguments, boundary)
        losses = transducer_loss.pruned_losses(
            joiner, simple, own[0], lattice, prune_range=2, smoothing=transducer_loss.Smoothing(0.1, 0.25)
        )
        wanted = [*own, *joiner.parameters(), *simple[0].parameters(), *simple[1].parameters()]
        results.append([*losses, *torch.autograd.grad(sum(x.sum() for x in losses), wanted)])
    assert_close(*results)
