"""The consistency loss against sums written out, and its gradient."""

import math

import torch

from asr_core.ops.consistency import consistency_loss, masked_kl_div


def log_probs(*shape, seed=0):
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).log_softmax(-1)


def brute_force(one, other, num_frames):
    """KL(other || one) of sequences (T, V)."""
    total = 0.0
    for t in range(num_frames):
        for v in range(one.size(1)):
            total += math.exp(other[t, v]) * (float(other[t, v]) - float(one[t, v]))
    return total


def test_equals_sums():
    x, lens = log_probs(4, 5, 3), torch.tensor([5, 2, 5, 2])
    loss = consistency_loss(x, lens)
    expected = [brute_force(x[i], x[(i + 2) % 4], int(lens[i])) for i in range(4)]
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64))
    assert (loss > 0).all()


def test_equal_views_agree():
    x = log_probs(2, 5, 3)
    assert consistency_loss(torch.cat([x, x]), torch.tensor([5, 4, 5, 4])).abs().max() < 1e-12


def test_padding_is_left_out_even_if_it_is_infinite():
    x, lens = log_probs(2, 5, 3), torch.tensor([3, 3])
    noisy = x.clone()
    noisy[:, 3:] = float("-inf")
    noisy.requires_grad_(True)
    loss = consistency_loss(noisy, lens)
    torch.testing.assert_close(loss, consistency_loss(x[:, :3], lens))
    loss.sum().backward()
    assert noisy.grad.isfinite().all() and noisy.grad[:, 3:].abs().max() == 0


def test_gradient():
    x, target, lens = (
        log_probs(2, 3, 4).requires_grad_(True),
        log_probs(2, 3, 4, seed=1),
        torch.tensor([3, 2]),
    )
    assert torch.autograd.gradcheck(lambda a: masked_kl_div(a, target, lens), (x,))
    both = torch.cat([x, target])
    grad = torch.autograd.grad(consistency_loss(both, torch.cat([lens, lens])).sum(), x)[0]
    expected = torch.autograd.grad(masked_kl_div(x, target, lens).sum(), x)[0]
    torch.testing.assert_close(grad, expected)  # none through the target
