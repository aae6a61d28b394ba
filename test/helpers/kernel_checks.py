"""Kernels in half precision against formulas in float64."""

import torch

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def random(*shape, dtype=torch.float32, scale=1.0, shift=0.0, seed=0):
    """Numbers that the type represents exactly."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator) * scale + shift).to(dtype)


def gradients(function, inputs, grad):
    """The result of ``function`` and the gradients of ``inputs``."""
    inputs = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    result = function(*inputs)
    return [result.detach(), *torch.autograd.grad(result, inputs, grad.to(result.dtype))]


def assert_close(got, exact, dtype, grown=1.0):
    """Compare tensors with float64 ones to the precision of ``dtype``, relative to the largest
    element; ``grown`` allows for sums.
    """
    for one, other in zip(got, exact):
        scale = max(1.0, other.abs().max().item()) if other.numel() else 1.0
        tolerance = TOLERANCE[dtype] * grown
        torch.testing.assert_close(one.double(), other.double(), rtol=tolerance, atol=tolerance * scale)
