"""The Transformer decoder against its formulas written as loops; padding and what comes later
change nothing.
"""

import dataclasses
import math

import pytest
import torch

from asr_core.nn import transformer
from asr_core.nn.transformer import (
    AbsolutePositionalEncoding,
    DecoderConfig,
    MultiHeadAttention,
    TransformerDecoder,
)

SIZES = DecoderConfig(
    embed_dim=12, num_layers=2, attention_dim=8, num_heads=2, feedforward_dim=20, memory_dim=10
)


def decoder(vocab_size=11, **changes):
    torch.manual_seed(0)
    return TransformerDecoder(vocab_size, dataclasses.replace(SIZES, **changes)).double().eval()


def loop_attention(attention, query, memory, seen):
    """One sequence: query (U, C), memory (S, D), seen(u) the frames that query u may look at."""
    heads, width = attention.num_heads, attention.head_dim
    q, k, v = attention.linear_q(query), attention.linear_k(memory), attention.linear_v(memory)
    rows = []
    for u in range(len(query)):
        out = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            weights = [math.exp(float(q[u, part] @ k[s, part]) / math.sqrt(width)) for s in seen(u)]
            out.append(sum(w / sum(weights) * v[s, part] for w, s in zip(weights, seen(u))))
        rows.append(torch.cat(out))
    return attention.out_proj(torch.stack(rows))


def loop_decoder(model, tokens, memory):
    """Logits (U, V) of one sentence, every frame of ``memory`` (S, D) valid."""
    dim = model.pos.embed_dim
    x = model.embed(torch.tensor(tokens)) * math.sqrt(dim)
    for t in range(len(tokens)):
        for k in range(dim // 2):
            angle = t / 10000 ** (2 * k / dim)
            x[t, 2 * k] += math.sin(angle)
            x[t, 2 * k + 1] += math.cos(angle)
    for layer in model.layers:
        y = layer.norm_self_attn(x)
        x = x + loop_attention(layer.self_attn, y, y, lambda u: range(u + 1))
        x = x + loop_attention(layer.src_attn, layer.norm_src_attn(x), memory, lambda u: range(len(memory)))
        h = layer.feed_forward[0](layer.norm_ff(x))
        x = x + layer.feed_forward[3](h * h.sigmoid())
    return model.output_layer(x)


@torch.no_grad()
def test_equals_loops():
    model = decoder()
    memory, lens = torch.randn(3, 9, 10, dtype=torch.float64), torch.tensor([9, 4, 1])
    sentences = [[1, 5, 2, 7], [1, 3], [1]]
    tokens = torch.tensor([s + [1] * (4 - len(s)) for s in sentences])
    logits = model(tokens, memory, lens)
    for i, sentence in enumerate(sentences):
        alone = loop_decoder(model, sentence, memory[i, : lens[i]])
        torch.testing.assert_close(logits[i, : len(sentence)], alone, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_padding_and_later_tokens_change_nothing():
    model = decoder()
    memory, lens = torch.randn(2, 7, 10, dtype=torch.float64), torch.tensor([7, 3])
    tokens = torch.tensor([[1, 2, 3, 4], [1, 6, 1, 1]])
    logits = model(tokens, memory, lens)
    noisy = memory.clone()
    noisy[1, 3:] = 1e3 * torch.randn(4, 10)
    longer = torch.cat([torch.cat([tokens, torch.tensor([[5], [8]])], dim=1)])
    torch.testing.assert_close(model(longer, noisy, lens)[:, :4], logits, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(
        model(tokens[1:, :2], memory[1:, :3], lens[1:]), logits[1:, :2], atol=1e-12, rtol=1e-12
    )
    tokens[0, 2] = 9
    changed = model(tokens, memory, lens)
    torch.testing.assert_close(changed[0, :2], logits[0, :2], atol=1e-12, rtol=1e-12)
    assert (changed[0, 2:] - logits[0, 2:]).abs().amax(dim=1).min() > 1e-3


def test_penalized_attention_is_the_same_with_another_gradient(monkeypatch):
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 8, 2).double().train()
    x, mask = (
        torch.randn(2, 5, 8, dtype=torch.float64, requires_grad=True),
        torch.ones(5, 5, dtype=torch.bool).triu(1),
    )
    outs, grads = [], []
    for draw, scale in ((0.5, 1.0), (0.05, 1.0), (0.5, 100.0), (0.05, 100.0)):
        monkeypatch.setattr(transformer.random, "random", lambda d=draw: d)
        out = attention(scale * x, scale * x, mask)
        outs.append(out)
        grads.append(torch.autograd.grad(out.square().sum(), x)[0])
    torch.testing.assert_close(outs[0], outs[1])
    torch.testing.assert_close(grads[0], grads[1])
    torch.testing.assert_close(outs[2], outs[3])
    assert not torch.allclose(grads[2], grads[3])


def test_gradcheck():
    torch.manual_seed(0)
    model = decoder(num_layers=1, embed_dim=4, attention_dim=4, feedforward_dim=6, memory_dim=3, vocab_size=5)
    memory = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    tokens, lens = torch.tensor([[1, 2, 4], [1, 3, 1]]), torch.tensor([3, 2])
    assert torch.autograd.gradcheck(lambda m: model(tokens, m, lens), (memory,))
    grad = torch.autograd.grad(model(tokens, memory, lens).sum(), memory)[0]
    assert grad[1, 2].abs().max() == 0 and grad[1, 1].abs().max() > 0


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="even size"):
        AbsolutePositionalEncoding(5)
    with pytest.raises(ValueError, match="3 heads cannot share"):
        MultiHeadAttention(8, 8, 3)
