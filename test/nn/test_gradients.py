"""Hand-written gradients against finite differences and against autograd."""

import math
import random

import pytest
import torch
from torch.autograd import gradcheck

from asr_core.nn.scaling import Balancer, Whiten
from asr_core.ops.activation_linear import activation_linear
from asr_core.ops.attention import attention_weights, attention_weights_plain
from asr_core.ops.balancer import balance_gradient
from asr_core.ops.limits import limit_value, penalize_large, scale_grad
from asr_core.ops.norm import bias_norm, bias_norm_plain
from asr_core.ops.whiten import whiten_gradient, whitening_metric


def randn(*shape, seed=0, scale=1.0, shift=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=dtype) * scale + shift).requires_grad_()


def balancer_by_autograd(x, grad, bounds, grad_scale, channel_dim):
    """The balancer as its loss defines it."""
    x = x.detach().clone().requires_grad_()
    dims = [d for d in range(x.dim()) if d != channel_dim % x.dim()]
    mean, mean_sq = x.mean(dims), x.square().mean(dims)
    rms = mean_sq.sqrt()
    m = mean / (mean_sq - mean * mean).sqrt()
    m_lo, m_hi, r_lo, r_hi = bounds
    loss = (m - m.clamp(m_lo, m_hi)).abs() + (rms.clamp(r_lo, r_hi) / rms).log().abs()
    (g,) = torch.autograd.grad(loss.sum(), x)
    g_rms = g.square().mean(dims, keepdim=True).sqrt().clamp(min=1e-20)
    return grad + grad.abs() * g * (grad_scale / g_rms)


@pytest.mark.parametrize("dtype,tol", [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("channel_dim,shape", [(-1, (40, 3, 12)), (1, (3, 12, 8, 5))])
def test_balancer(dtype, tol, channel_dim, shape):
    sizes = [1] * len(shape)
    sizes[channel_dim] = 12
    x = randn(*shape).detach()
    # channels out of bounds on every side, on two sides at once, and within
    scale = torch.tensor(
        [0.05, 0.3, 3.5, 4.0, 9.0, 0.05, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0], dtype=torch.float64
    ).view(sizes)
    shift = torch.tensor(
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 2.0, -2.0, -20.0, 0.1, -0.1, 0.0], dtype=torch.float64
    ).view(sizes)
    x = (x * scale + shift).to(dtype).requires_grad_()
    grad = randn(*shape, seed=1).detach().to(dtype)
    bounds = (-0.5, 0.5, 0.4, 3.0)
    y = balance_gradient(x, bounds, 0.04, channel_dim)
    assert torch.equal(y, x)
    (mine,) = torch.autograd.grad(y, x, grad)
    theirs = balancer_by_autograd(x, grad, bounds, 0.04, channel_dim)
    torch.testing.assert_close(mine, theirs, atol=tol, rtol=tol)
    changed = (mine - grad).abs().amax([d for d in range(x.dim()) if d != channel_dim % x.dim()]) > 0
    assert changed.tolist() == [True] * 9 + [False] * 3


def test_balancer_survives_constant_and_zero_channels():
    x = torch.stack([torch.zeros(20), torch.full((20,), 3.0), torch.randn(20)], dim=1).requires_grad_()
    (grad,) = torch.autograd.grad(balance_gradient(x, (-0.5, 0.5, 0.4, 2.0), 0.04, -1).sum(), x)
    assert grad.isfinite().all()


def whiten_by_autograd(x, grad, groups, grad_scale):
    x = x.detach().clone().requires_grad_()
    rows = x.reshape(-1, groups, x.shape[-1] // groups).transpose(0, 1)
    rows = rows - rows.mean(1, keepdim=True)
    covar = rows.transpose(1, 2) @ rows
    metric = covar.square().sum() / x.shape[-1] / covar.diagonal(dim1=1, dim2=2).mean() ** 2
    (g,) = torch.autograd.grad(metric, x)
    return metric.detach(), grad + g * grad_scale * grad.norm() / g.norm()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("dtype,tol", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_whiten(groups, dtype, tol):
    mix = randn(12, 12, seed=2).detach()
    x = (randn(30, 4, 12).detach() @ mix + 1.5).to(dtype).requires_grad_()
    grad = randn(30, 4, 12, seed=1).detach().to(dtype)
    metric, theirs = whiten_by_autograd(x, grad, groups, 0.02)
    torch.testing.assert_close(whitening_metric(x, groups), metric, atol=tol, rtol=tol)
    reports = []
    for limit, expected in ((metric.item() * 0.99, theirs), (metric.item() * 1.01, grad)):
        y = whiten_gradient(x, groups, limit, 0.02, reports.append)
        (mine,) = torch.autograd.grad(y, x, grad)
        torch.testing.assert_close(mine, expected, atol=tol, rtol=tol)
    assert [bool(r) for r in reports] == [True, False]


def test_bias_norm():
    x, bias = randn(5, 3, 8), randn(8, seed=1, scale=0.1)
    log_scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(bias_norm(x, bias, log_scale), bias_norm_plain(x, bias, log_scale))
    assert gradcheck(bias_norm, (x, bias, log_scale))


@pytest.mark.parametrize("activation", ["SwooshL", "SwooshR"])
@pytest.mark.parametrize("with_mask", [False, True])
def test_activation_linear(activation, with_mask):
    x, weight, bias = randn(4, 3, 6, scale=5.0), randn(5, 6, seed=1), randn(5, seed=2)
    mask = (torch.rand(1, 3, 6, dtype=torch.float64) > 0.3).double() * 1.4 if with_mask else None
    assert gradcheck(lambda *a: activation_linear(*a, activation, mask), (x, weight, bias))
    assert gradcheck(lambda *a: activation_linear(*a, None, activation, mask), (x, weight))


@pytest.mark.parametrize("left", [0, 3])
@pytest.mark.parametrize("mask_kind", ["none", "padding", "chunks"])
def test_attention_weights(left, mask_kind):
    heads, batch, queries, dim, pos_dim = 2, 3, 5, 4, 3
    keys = queries + left
    q, k = randn(heads, batch, queries, dim), randn(heads, batch, keys, dim, seed=1)
    p, pos = randn(heads, batch, queries, pos_dim, seed=2), randn(heads, queries - 1 + keys, pos_dim, seed=3)
    mask = None
    if mask_kind == "padding":
        mask = (torch.arange(keys) >= torch.tensor([keys, keys - 1, keys - 3])[:, None])[:, None]
    elif mask_kind == "chunks":
        mask = (torch.arange(keys)[None] > torch.arange(queries)[:, None] + left)[None]
        mask = mask | (torch.arange(queries) == 2)[None, :, None]  # a row that sees nothing
    weights, first = attention_weights(q, k, p, pos, mask)
    torch.testing.assert_close(weights, attention_weights_plain(q, k, p, pos, mask))
    assert torch.equal(first, weights[:1])
    by_hand = q @ k.transpose(2, 3)
    for t in range(queries):
        for s in range(keys):
            by_hand[:, :, t, s] = by_hand[:, :, t, s] + (p[:, :, t] * pos[:, None, queries - 1 - t + s]).sum(
                -1
            )
    expected = by_hand if mask is None else by_hand.masked_fill(mask, -1000.0)
    torch.testing.assert_close(weights, expected.softmax(-1))
    assert gradcheck(lambda *a: attention_weights(*a, mask), (q, k, p, pos))
    assert gradcheck(lambda *a: attention_weights(*a, None, pos, mask), (q, k))


@pytest.mark.parametrize("with_positions", [True, False])
@pytest.mark.parametrize("mask_sizes", [None, (3, 1), (1, 19), (3, 19)])
def test_attention_kernels_equal_the_formula(with_positions, mask_sizes):
    heads, batch, queries, keys = 2, 3, 19, 22
    args = [randn(heads, batch, n, 8, seed=i, scale=2.0) for i, n in enumerate((queries, keys))]
    args.append(randn(heads, batch, queries, 4, seed=2) if with_positions else None)
    args.append(randn(heads, queries - 1 + keys, 4, seed=3))
    mask = None
    if mask_sizes:
        mask = torch.rand((*mask_sizes, keys), generator=torch.Generator().manual_seed(4)) < 0.4
        mask[0, 0] = True  # rows that see nothing
    inputs = [a for a in args if a is not None][: 4 if with_positions else 2]
    grads = [
        randn(heads, batch, queries, keys, seed=5).detach(),
        randn(1, batch, queries, keys, seed=6).detach(),
    ]
    plain = attention_weights_plain(*args, mask)
    expected = torch.autograd.grad((plain, plain[:1]), inputs, grads)
    fast = [None if a is None else a.detach().float().requires_grad_() for a in args]
    outputs = attention_weights(*fast, mask)
    torch.testing.assert_close(outputs[0].double(), plain, atol=1e-6, rtol=1e-5)
    assert (outputs[0][plain == 0] == 0).all()
    got = torch.autograd.grad(
        outputs, [a for a in fast if a is not None][: len(inputs)], [g.float() for g in grads]
    )
    for one, other in zip(got, expected):
        torch.testing.assert_close(one.double(), other, atol=2e-5, rtol=2e-5)
    only_first = torch.autograd.grad(attention_weights(*fast, mask)[1], fast[0], grads[1].float())[0]
    torch.testing.assert_close(
        only_first.double(),
        torch.autograd.grad(attention_weights_plain(*args, mask)[:1], args[0], grads[1])[0],
        atol=2e-5,
        rtol=2e-5,
    )


def test_attention_score_penalty():
    q, k = randn(1, 1, 4, 3, scale=6.0), randn(1, 1, 4, 3, seed=1, scale=6.0)
    pos = torch.zeros(1, 7, 2, dtype=torch.float64)
    scores = (q @ k.transpose(2, 3)).detach()
    assert (scores > 25).any() and (scores < -25).any() and (scores.abs() < 25).any()
    weights = [
        attention_weights(q, k, None, pos, None, limit=25.0, penalty=penalty)[0] for penalty in (0.0, 1e-2)
    ]
    without, added = (torch.autograd.grad(w.square().sum(), (q, k)) for w in weights)
    push = 1e-2 * scores.sign() * (scores.abs() > 25)
    torch.testing.assert_close(added[0] - without[0], push @ k.detach())
    torch.testing.assert_close(added[1] - without[1], push.transpose(2, 3) @ q.detach())


def test_limits():
    x = torch.tensor([-2.0, -2.0, 0.5, 0.5, 3.0, 3.0], requires_grad=True)
    grad = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    (mine,) = torch.autograd.grad(limit_value(x, 0.0, 1.0), x, grad)
    assert mine.tolist() == [-1.0, -1.0, 1.0, -1.0, 1.0, 1.0]
    (mine,) = torch.autograd.grad(penalize_large(x, 1.0, 0.5), x, grad)
    assert mine.tolist() == [0.5, -1.5, 1.0, -1.0, 1.5, -0.5]
    (mine,) = torch.autograd.grad(scale_grad(x, 0.2), x, grad)
    torch.testing.assert_close(mine, 0.2 * grad)


def test_modules_act_in_training_alone_and_as_often_as_they_should():
    random.seed(0)
    x = (5.0 + torch.randn(50, 8)).requires_grad_()
    balancer = Balancer(8, prob=0.25)
    whiten = Whiten(1, whitening_limit=1.0, prob=(0.2, 0.6), grad_scale=0.1)
    for module, prob in ((balancer, 0.25), (whiten, 0.6)):
        acted = 0
        for _ in range(400):
            (grad,) = torch.autograd.grad(module.train()(x).sum(), x)
            acted += not torch.equal(grad, torch.ones_like(grad))
        assert abs(acted / 400 - prob) < 5 * math.sqrt(prob * (1 - prob) / 400)
        assert module.eval()(x) is x and module.train()(x.detach()).requires_grad is False


def test_whiten_remembers_whether_the_limit_was_reached():
    random.seed(0)
    whiten = Whiten(1, whitening_limit=3.0, prob=(0.1, 0.9), grad_scale=0.1)
    for spread, expected in ((torch.ones(8), 0.1), (torch.tensor([9.0] + [0.1] * 7), 0.9)):
        x = (torch.randn(500, 8) * spread).requires_grad_()
        for _ in range(60):
            whiten(x).sum().backward()
        assert whiten.prob == expected
