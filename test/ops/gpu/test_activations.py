"""Triton's kernels, in its interpreter, against the formulas in float64."""

import pytest
import torch

from asr_core.ops import swoosh
from asr_core.ops.gpu import dispatch

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (2, 1031)])
@pytest.mark.parametrize("activation", ["SwooshL", "SwooshR"])
def test_swoosh_and_its_gradient(activation, shape, dtype, monkeypatch):
    torch.manual_seed(0)
    x = (torch.randn(shape) * 20).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    called = []
    monkeypatch.setattr(swoosh, "usable", lambda *_: called.append(1))
    y = getattr(swoosh, {"SwooshL": "swoosh_l", "SwooshR": "swoosh_r"}[activation])(x)
    want = swoosh.swoosh_plain(exact, *swoosh.SWOOSH[activation])
    grad = torch.randn(shape).to(dtype)
    y.backward(grad)
    want.backward(grad.double())
    assert dispatch.usable(x) and not called and y.dtype == dtype
    for got, exactly in ((y, want), (x.grad, exact.grad)):
        torch.testing.assert_close(got.double(), exactly, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
