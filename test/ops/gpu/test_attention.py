"""The kernels of attention weights, in Triton's interpreter, against the formula in float64."""

import pytest
import torch

from asr_core.ops import attention
from asr_core.ops.limits import penalize_large

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
HEADS, BATCH, WIDTH = 2, 2, 6


def inputs_of(queries, keys, pos_width, dtype, scale=1.0):
    """q, k, p and pos as the projections' output gives them: parts of larger tensors, not dense."""
    generator = torch.Generator().manual_seed(0)

    def rows(frames, *widths):
        x = torch.randn(frames, BATCH, HEADS * sum(widths), generator=generator).mul(scale).to(dtype)
        parts = x.split([HEADS * w for w in widths], dim=-1)
        return [part.unflatten(-1, (HEADS, w)).permute(2, 1, 0, 3) for part, w in zip(parts, widths)]

    k, _ = rows(keys, WIDTH, WIDTH)
    q, *p = rows(queries, WIDTH, *([pos_width] if pos_width else []))
    pos = torch.randn(HEADS, queries - 1 + keys, max(pos_width, 1), generator=generator).to(dtype)
    return [t if t is None else t.detach().requires_grad_() for t in (q, k, p[0] if p else None, pos)]


def exact_weights(q, k, p, pos, mask, penalty):
    """The formula, and the penalty as the gradient of what it charges."""
    scores = q @ k.transpose(2, 3)
    if p is not None:
        scores = scores + attention.relative_shift(p @ pos.unsqueeze(1).transpose(2, 3), k.size(2))
    scores = penalize_large(scores, 25.0, penalty)
    return (scores if mask is None else scores.masked_fill(mask, -1000.0)).softmax(-1)


def make_mask(kind, queries, keys):
    padding = (torch.arange(keys) >= torch.tensor([keys, max(1, keys - 3)])[:, None])[:, None]
    later = torch.arange(keys) // 4 > (torch.arange(queries)[:, None] + keys - queries) // 4
    blind = (torch.arange(queries) == 1)[None, :, None]  # a row that sees nothing
    return {
        "none": None,
        "padding": padding,
        "chunks": later[None],
        "both": padding | later[None] | blind,
        "strided": torch.cat([later, later])[None].transpose(1, 2).contiguous().transpose(1, 2)[:, :queries],
    }[kind]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "queries,keys,pos_width,kind,penalty,both",
    [
        (1, 1, 4, "none", 0.0, True),
        (19, 19, 4, "padding", 0.0, True),
        (17, 70, 3, "both", 0.0, True),
        (36, 36, 4, "chunks", 0.0, False),
        (21, 21, 0, "strided", 0.0, True),
        (35, 35, 4, "both", 0.01, True),
    ],
)
def test_attention_weights(queries, keys, pos_width, kind, penalty, both, dtype, monkeypatch):
    args = inputs_of(queries, keys, pos_width, dtype, scale=4.0 if penalty else 1.0)
    mask = make_mask(kind, queries, keys)
    exact = [None if t is None else t.detach().double().requires_grad_() for t in args]
    monkeypatch.setattr(attention, "usable", None)
    weights, first = attention.attention_weights(*args, mask, 25.0, penalty)
    want = exact_weights(*exact, mask, penalty)
    assert weights.dtype == dtype and torch.equal(first, weights[:1])
    tolerance = dict(rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    torch.testing.assert_close(weights.double(), want, **tolerance)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(t.shape, generator=generator).to(dtype) for t in (weights, first)]
    count = 1 + both
    leaves = range(4 if pos_width else 2)
    got = torch.autograd.grad((weights, first)[:count], [args[i] for i in leaves], grads[:count])
    expected = torch.autograd.grad(
        (want, want[:1])[:count], [exact[i] for i in leaves], [g.double() for g in grads[:count]]
    )
    for one, other in zip(got, expected):
        assert one.dtype == dtype
        size = other.detach().abs().max().clamp(min=1.0).item()
        torch.testing.assert_close(
            one.double(), other, rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype] * size
        )


def test_only_the_first_head_is_used():
    args = inputs_of(9, 9, 4, torch.float32)
    _, first = attention.attention_weights(*args, None)
    grad = torch.randn(first.shape)
    got = torch.autograd.grad(first, args, grad)
    exact = [t.detach().double().requires_grad_() for t in args]
    expected = torch.autograd.grad(exact_weights(*exact, None, 0.0)[:1], exact, grad.double())
    for one, other in zip(got, expected):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_wide_positions_are_left_to_matrix_products():
    args = inputs_of(5, 5, 17, torch.float32)
    weights, _ = attention.attention_weights(*args, None)
    torch.testing.assert_close(weights, attention.attention_weights_plain(*args, None))
