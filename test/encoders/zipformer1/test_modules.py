"""The parts of the first Zipformer against their formulas."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from asr_core.encoders.zipformer1.attention import RelPositionalEncoding, RelPositionMultiheadAttention
from asr_core.encoders.zipformer1.layer import CausalConvolutionModule
from asr_core.encoders.zipformer1.modules import (
    ActivationBalancer,
    AttentionDownsample,
    BasicNorm,
    BiasedUpsample,
    CumulativeMean,
    WeightedSum,
)
from asr_core.ops.basic_norm import basic_norm, basic_norm_plain
from asr_core.ops.double_swish import double_swish


def test_balancer_counts_batches():
    balancer = ActivationBalancer(3, min_prob=0.25).train()
    x = torch.randn(5, 3, requires_grad=True)
    for _ in range(7):
        balancer(x)
    assert balancer.prob == pytest.approx(0.5 ** (1 + 6 / 4000))
    state = balancer.state_dict()
    assert state["count"].dtype == torch.int64 and int(state["count"]) == 7
    other = copy.deepcopy(balancer)
    other.load_state_dict({"count": torch.tensor(40000)})
    other(x)
    assert other.prob == 0.25 and int(other.state_dict()["count"]) == 40001
    assert int(balancer.eval()(x).numel()) == 15 and int(balancer.state_dict()["count"]) == 7


def test_gradients_of_norm_and_activation():
    torch.manual_seed(0)
    x, eps = (
        torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True),
        torch.tensor(-1.3, dtype=torch.float64, requires_grad=True),
    )
    torch.testing.assert_close(basic_norm(x, eps), basic_norm_plain(x, eps))
    torch.testing.assert_close(double_swish(x), x * torch.sigmoid(x - 1))
    assert torch.autograd.gradcheck(basic_norm, (x, eps)) and torch.autograd.gradcheck(double_swish, (x,))
    y = (5 * torch.randn(7, 1000)).requires_grad_()  # the compiled kernels, where there are any
    torch.testing.assert_close(double_swish(y), y * torch.sigmoid(y - 1))
    expected = torch.autograd.grad((y * torch.sigmoid(y - 1)).square().sum(), y)[0]
    torch.testing.assert_close(torch.autograd.grad(double_swish(y).square().sum(), y)[0], expected)
    assert BasicNorm().eps.exp().item() == pytest.approx(0.25)


@torch.no_grad()
def test_small_parts_against_formulas():
    torch.manual_seed(0)
    x = torch.randn(7, 2, 4)
    pooling, down, up, combine = (
        CumulativeMean(4),
        AttentionDownsample(4, 6, 3),
        BiasedUpsample(4, 2),
        WeightedSum(),
    )
    torch.testing.assert_close(pooling(x)[3], F.linear(x[:4].mean(dim=0), pooling.proj.weight))
    y = down(x)
    weights = (x[3:6] @ down.query).softmax(dim=0)
    torch.testing.assert_close(y[1, :, :4], (x[3:6] * weights.unsqueeze(2)).sum(dim=0))
    torch.testing.assert_close(
        y[1, :, 4:], F.linear(torch.cat([x[3], x[4], x[5]], dim=1), down.extra_proj.weight)
    )
    torch.testing.assert_close(
        y[2], torch.cat([x[6], F.linear(x[6].repeat(1, 3), down.extra_proj.weight)], dim=1)
    )
    padded = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    torch.testing.assert_close(down(x, padded)[1, 1, :4], x[3, 1])
    torch.testing.assert_close(up(x)[5], x[2] + up.bias[1])
    combine.weight1.fill_(0.3)
    torch.testing.assert_close(combine(x, y[:1].expand(7, 2, 6)), F.pad(0.3 * x, (0, 2)) + 0.7 * y[:1])
    conv = CausalConvolutionModule(4, 3).eval()
    gated = F.glu(conv.pointwise_conv1(x.permute(1, 2, 0)), dim=1)
    expected = conv.pointwise_conv2(double_swish(conv.depthwise_conv(F.pad(gated, (2, 0)))))
    torch.testing.assert_close(conv(x), expected.permute(2, 0, 1))


@torch.no_grad()
def test_attention_against_its_formula():
    torch.manual_seed(0)
    frames, heads = 5, 2
    attention, x = RelPositionMultiheadAttention(6, 8, heads, 3).eval(), torch.randn(frames, 1, 6)
    pos_emb = RelPositionalEncoding(6, 0.1).eval()(x)
    angle = 2 * 10000 ** (-2 / 6)  # key two frames before the query, second frequency
    assert pos_emb.shape == (1, 9, 6) and pos_emb[0, 2, 2:4].tolist() == pytest.approx(
        [math.sin(angle), math.cos(angle)]
    )
    mask = torch.zeros(1, frames, frames, dtype=torch.bool)
    mask[0, :3, 3:] = True
    out, weights = attention(x, pos_emb, mask)
    q, k, v, p = attention.in_proj(x[:, 0]).split([8, 8, 4, 6], dim=1)
    averaged = torch.zeros(frames, 4)
    for h in range(heads):
        scores = q[:, 4 * h : 4 * h + 4] @ k[:, 4 * h : 4 * h + 4].t()
        pos = attention.linear_pos(pos_emb[0])[:, 3 * h : 3 * h + 3]
        for i in range(frames):
            for j in range(frames):
                scores[i, j] += p[i, 3 * h : 3 * h + 3] @ pos[frames - 1 - (i - j)]
        expected = scores.masked_fill(mask[0], float("-inf")).softmax(dim=1)
        torch.testing.assert_close(weights[h, 0], expected)
        averaged[:, 2 * h : 2 * h + 2] = expected @ v[:, 2 * h : 2 * h + 2]
    torch.testing.assert_close(out[:, 0], attention.out_proj(averaged))
