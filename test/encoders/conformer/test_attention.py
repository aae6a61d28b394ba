"""Transformer-XL attention against its formula, written with loops."""

import math

import pytest
import torch

from asr_core.encoders.conformer.attention import (
    KeyShiftAttention,
    MultiheadAttention,
    RelPositionMultiheadAttention,
    relative_positions,
    sinusoids,
)


def attention(**options):
    torch.manual_seed(0)
    model = RelPositionMultiheadAttention(8, 2, dropout=0.0, **options).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
    return model


def brute_force(model, x, mask=None):
    """(T, N, 8) -> (T, N, 8), with one dot product for each pair of frames and head."""
    num_frames, batch, dim = x.shape
    heads, width = model.num_heads, model.head_dim
    out = torch.zeros_like(x)
    factor = torch.ones(width, dtype=x.dtype)
    if model.per_dim_scale is not None:
        factor = torch.nn.functional.softplus(model.per_dim_scale) / math.log(2)
    for n in range(batch):
        q, k, v = model.in_proj(x[:, n]).split(dim, dim=1)
        context = torch.zeros(num_frames, dim, dtype=x.dtype)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            u, w = model.pos_bias_u[h], model.pos_bias_v[h]
            scores = torch.full((num_frames, num_frames), -math.inf, dtype=x.dtype)
            for i in range(num_frames):
                for j in range(num_frames):
                    if mask is not None and mask[n, i, j]:
                        continue
                    position = model.linear_pos(sinusoids(torch.tensor(i - j), dim).to(x.dtype))[part]
                    query = factor * q[i, part]
                    if model.scale_bias:
                        scores[i, j] = ((query + u) @ k[j, part] + (query + w) @ position) / math.sqrt(width)
                    else:
                        query = query / math.sqrt(width)
                        scores[i, j] = (query + u) @ k[j, part] + (query + w) @ position
            context[:, part] = scores.softmax(dim=1) @ v[:, part]
        out[:, n] = model.out_proj(context)
    return out


@pytest.mark.parametrize("per_dim_scale", [False, True])
@pytest.mark.parametrize("scale_bias", [False, True])
def test_formula(per_dim_scale, scale_bias):
    model = attention(per_dim_scale=per_dim_scale, scale_bias=scale_bias)
    x = torch.randn(5, 2, 8, dtype=torch.float64)
    mask = torch.rand(2, 5, 5) < 0.3
    mask[:, torch.arange(5), torch.arange(5)] = False
    for m in (None, mask):
        torch.testing.assert_close(model(x, relative_positions(5, 5, x), m), brute_force(model, x, m))


def test_gradients():
    model = attention(per_dim_scale=True)
    x = torch.randn(4, 2, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[[False, False, False, True]], [[False, True, False, False]]])
    names, values = zip(*model.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(
            model, dict(zip(names, values)), (x, relative_positions(4, 4, x), mask)
        )

    assert torch.autograd.gradcheck(run, (x, *values))


def test_per_dim_scale_starts_at_one():
    torch.manual_seed(0)
    scaled = RelPositionMultiheadAttention(8, 2, dropout=0.0, per_dim_scale=True)
    plain = RelPositionMultiheadAttention(8, 2, dropout=0.0)
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if k != "per_dim_scale"})
    x = torch.randn(4, 1, 8)
    torch.testing.assert_close(scaled(x, relative_positions(4, 4, x)), plain(x, relative_positions(4, 4, x)))


def test_sinusoids():
    table = sinusoids(torch.tensor([0.0, 3.0]), 6)
    assert table[0].tolist() == [0, 0, 0, 1, 1, 1]
    angles = [3.0, 3.0 / 100, 3.0 / 10000]
    torch.testing.assert_close(table[1], torch.tensor([*map(math.sin, angles), *map(math.cos, angles)]))


def test_a_chunk_after_cached_frames():
    model = attention()
    x = torch.randn(7, 2, 8, dtype=torch.float64)
    whole = model(x, relative_positions(7, 7, x))
    _, k, v = model.in_proj(x[:4]).chunk(3, dim=2)
    mask = torch.zeros(2, 1, 7, dtype=torch.bool)
    last, next_k, _ = model.streaming_forward(x[4:], relative_positions(3, 7, x), k, v, mask)
    torch.testing.assert_close(last, whole[4:])
    assert next_k.shape == (4, 2, 8)


def brute_force_key_shift(model, x, mask=None):
    """(T, N, 8) -> (T, N, 8): ``q .

    (k + a[clip(j - i)]) / sqrt(d)`` for one pair of frames after the other; without a if it has
    none.
    """
    num_frames, batch, dim = x.shape
    out = torch.zeros_like(x)
    factor = (
        1.0
        if model.per_dim_scale is None
        else torch.nn.functional.softplus(model.per_dim_scale) / math.log(2)
    )
    for n in range(batch):
        q, k, v = model.in_proj(x[:, n]).split(dim, dim=1)
        context = torch.zeros(num_frames, dim, dtype=x.dtype)
        for h in range(model.num_heads):
            part = slice(h * model.head_dim, (h + 1) * model.head_dim)
            scores = torch.full((num_frames, num_frames), -math.inf, dtype=x.dtype)
            for i in range(num_frames):
                for j in range(num_frames):
                    if mask is None or not mask[n, i, j]:
                        key = k[j, part]
                        if isinstance(model, KeyShiftAttention):
                            key = key + model.key_shift[max(-model.clip, min(model.clip, j - i)) + model.clip]
                        scores[i, j] = (factor * q[i, part]) @ key / math.sqrt(model.head_dim)
            context[:, part] = scores.softmax(dim=1) @ v[:, part]
        out[:, n] = model.out_proj(context)
    return out


def other_attention(kind, **options):
    torch.manual_seed(0)
    model = kind(8, 2, dropout=0.0, **options).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
    return model


@pytest.mark.parametrize("per_dim_scale", [False, True])
@pytest.mark.parametrize(
    "kind, options",
    [(KeyShiftAttention, {"clip": 2}), (KeyShiftAttention, {"clip": 400}), (MultiheadAttention, {})],
)
def test_formula_of_key_shifts_and_of_no_positions(kind, options, per_dim_scale):
    model = other_attention(kind, per_dim_scale=per_dim_scale, **options)
    x = torch.randn(6, 2, 8, dtype=torch.float64)
    mask = torch.rand(2, 6, 6) < 0.3
    mask[:, torch.arange(6), torch.arange(6)] = False
    for m in (None, mask):
        torch.testing.assert_close(model(x, x.new_zeros(1, 0, 0), m), brute_force_key_shift(model, x, m))
    torch.testing.assert_close(
        model.float()(x.float(), x.new_zeros(1, 0, 0), mask), brute_force_key_shift(model, x.float(), mask)
    )


def test_key_shifts_after_cached_frames():
    model = other_attention(KeyShiftAttention, clip=3)
    x = torch.randn(7, 2, 8, dtype=torch.float64)
    _, k, v = model.in_proj(x[:4]).chunk(3, dim=2)
    last, _, _ = model.streaming_forward(
        x[4:], x.new_zeros(1, 0, 0), k, v, torch.zeros(2, 1, 7, dtype=torch.bool)
    )
    torch.testing.assert_close(last, brute_force_key_shift(model, x)[4:])


def test_gradients_of_key_shifts():
    model = other_attention(KeyShiftAttention, clip=1)
    x = torch.randn(4, 1, 8, dtype=torch.float64, requires_grad=True)
    names, values = zip(*model.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(model, dict(zip(names, values)), (x, x.new_zeros(1, 0, 0)))

    assert torch.autograd.gradcheck(run, (x, *values))
