"""The kernel of the gated linear unit, in Triton's interpreter, against the formula in float64."""

import pytest
import torch

from asr_core.ops import gate

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "frames,batch,channels,masked", [(1, 1, 1, False), (7, 3, 5, True), (11, 2, 300, True)]
)
def test_gate_and_its_gradient(frames, batch, channels, masked, dtype, monkeypatch):
    torch.manual_seed(0)
    x = (3 * torch.randn(frames, batch, 2 * channels)).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    mask = (torch.arange(frames) >= torch.tensor([[frames], [2], [0]])[:batch]).t() if masked else None
    want = gate.gate_plain(exact, mask)
    with monkeypatch.context() as patch:
        patch.setattr(gate, "gate_plain", None)
        y = gate.gate(x, mask)
    grad = torch.randn(y.shape).to(dtype)
    y.backward(grad)
    want.backward(grad.double())
    for got, exactly in ((y, want), (x.grad, exact.grad)):
        assert got.dtype == dtype
        torch.testing.assert_close(got.double(), exactly, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    if masked:
        assert (y[mask] == 0).all() and (x.grad[mask] == 0).all()
