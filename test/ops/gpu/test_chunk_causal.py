"""The kernels of the chunk-causal convolution, in Triton's interpreter, against the module."""

import pytest
import torch

from asr_core.encoders.zipformer.convolution import ChunkCausalDepthwiseConv1d
from asr_core.ops import chunk_causal

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "frames,channels,kernel,chunk,lens",
    [
        (1, 1, 1, -1, None),
        (11, 3, 7, 4, None),  # chunks shorter than the kernel, the last one not full
        (35, 5, 5, 8, None),  # chunks longer than the kernel, two blocks of frames
        (13, 66, 5, -1, [13, 3]),  # sequences shorter than the kernel and the chunk
        (9, 3, 7, 4, [9, 2]),
    ],
)
def test_chunk_causal_convolution(frames, channels, kernel, chunk, lens, dtype, monkeypatch):
    torch.manual_seed(0)
    module = ChunkCausalDepthwiseConv1d(channels, kernel)
    with torch.no_grad():
        module.chunkwise_conv_scale.normal_()
    x = torch.randn(frames, 2, channels).to(dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    lens = None if lens is None else torch.tensor(lens)
    parameters = list(module.parameters())
    called = []
    kernels = chunk_causal.chunk_causal_conv1d
    monkeypatch.setattr(chunk_causal, "chunk_causal_conv1d", lambda *a: called.append(1) or kernels(*a))
    y = module(x, chunk, lens)
    assert called and y.dtype == dtype
    grad = torch.randn(y.shape).to(dtype)
    got = [y, *torch.autograd.grad(y, [x, *parameters], grad)]
    reference = ChunkCausalDepthwiseConv1d(channels, kernel)
    reference.load_state_dict(module.state_dict())
    want = reference.double()(exact, chunk, lens)
    assert len(called) == 1
    expected = [want, *torch.autograd.grad(want, [exact, *reference.parameters()], grad.double())]
    for one, other in zip(got, expected):
        size = other.detach().abs().max().clamp(min=1.0).item()
        torch.testing.assert_close(one.double(), other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size)
