"""Transformer decoders (Vaswani et al. 2017), with the normalisation before each module."""

import math
import random
from dataclasses import dataclass
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.ops.limits import penalize_large

# Attention scores beyond the limit get a penalty on a tenth of the batches: softmax is saturated
# there, and has no gradient that would bring them back. The penalty is small, since it
# adds up over all scores.
_SCORE_LIMIT = 50.0
_SCORE_PENALTY = 1.0e-4
_PENALTY_PROB = 0.1


class AbsolutePositionalEncoding(nn.Module):
    """``dropout(sqrt(C) x + p)`` with ``p[t, 2k] = sin(t / 10000^(2k / C))`` and the cosine at ``2k
    + 1``.

    Args:
      embed_dim: C, even.
      dropout: dropout rate.
    """

    def __init__(self, embed_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        if embed_dim % 2 != 0:
            raise ValueError(f"the positional encoding needs an even size, got {embed_dim}")
        self.embed_dim = embed_dim
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Add the encoding to x (N, U, C)."""
        return self.dropout(x * math.sqrt(self.embed_dim) + self.table(x))

    def table(self, x: Tensor) -> Tensor:
        """Return the encoding of the positions of ``x`` (N, U, C): (U, C)."""
        position = torch.arange(x.size(1), device=x.device, dtype=torch.float32).unsqueeze(1)
        exponent = torch.arange(0, self.embed_dim, 2, device=x.device, dtype=torch.float32) / self.embed_dim
        angle = position * torch.exp(exponent * -math.log(10000.0))
        return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).to(x.dtype)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of several heads.

    Args:
      embed_dim: width of queries and output.
      attention_dim: width of all heads together.
      num_heads: H, divides ``attention_dim``.
      memory_dim: width of keys and values; left out: ``embed_dim``.
    """

    def __init__(
        self, embed_dim: int, attention_dim: int, num_heads: int, memory_dim: Optional[int] = None
    ) -> None:
        super().__init__()
        if attention_dim % num_heads != 0:
            raise ValueError(f"{num_heads} heads cannot share an attention of width {attention_dim}")
        memory_dim = embed_dim if memory_dim is None else memory_dim
        self.num_heads = num_heads
        self.head_dim = attention_dim // num_heads
        self.linear_q = nn.Linear(embed_dim, attention_dim)
        self.linear_k = nn.Linear(memory_dim, attention_dim)
        self.linear_v = nn.Linear(memory_dim, attention_dim)
        self.out_proj = nn.Linear(attention_dim, embed_dim)

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Average the values of ``memory`` for each query.

        Args:
          query: (N, U, embed_dim).
          memory: (N, S, memory_dim), of which keys and values are made.
          mask: boolean, broadcasts with (N, H, U, S), True at keys that must not be seen; each
            query must see one.

        Returns:
          (N, U, embed_dim).
        """
        q = self._heads(self.linear_q(query))  # (N, H, U, D)
        k, v = self._heads(self.linear_k(memory)), self._heads(self.linear_v(memory))  # (N, H, S, D)
        penalize = False
        if not torch.jit.is_scripting() and not torch.jit.is_tracing():
            penalize = self.training and random.random() < _PENALTY_PROB
        if penalize:
            out = self._attend_penalized(q, k, v, mask)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.logical_not())
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        """Split (N, T, H * D) into (N, H, T, D)."""
        return x.reshape(x.size(0), x.size(1), self.num_heads, self.head_dim).transpose(1, 2)

    @torch.jit.unused
    def _attend_penalized(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attend as usual, (N, H, U, D), with a gradient that lowers scores beyond the limit."""
        scores = torch.matmul(q / math.sqrt(self.head_dim), k.transpose(2, 3))
        scores = penalize_large(scores, limit=_SCORE_LIMIT, penalty=_SCORE_PENALTY)
        return torch.matmul(scores.masked_fill(mask, float("-inf")).softmax(dim=-1).to(v.dtype), v)


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a :class:`TransformerDecoder`.

    Attributes:
      embed_dim: width of the layers.
      num_layers: their number.
      attention_dim: width of each attention, all heads together.
      num_heads: heads of each attention.
      feedforward_dim: width inside the feed-forward modules.
      memory_dim: width of the encoder's output.
      dropout: dropout rate.
    """

    embed_dim: int = 512
    num_layers: int = 6
    attention_dim: int = 512
    num_heads: int = 8
    feedforward_dim: int = 2048
    memory_dim: int = 512
    dropout: float = 0.1


class TransformerDecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's output, feed-forward.

    Each ``x + dropout(module(norm(x)))``.

    Args:
      config: its sizes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        embed_dim, dropout = config.embed_dim, config.dropout
        attention_dim, num_heads = config.attention_dim, config.num_heads
        self.norm_self_attn = nn.LayerNorm(embed_dim)
        self.self_attn = MultiHeadAttention(embed_dim, attention_dim, num_heads)
        self.norm_src_attn = nn.LayerNorm(embed_dim)
        self.src_attn = MultiHeadAttention(embed_dim, attention_dim, num_heads, config.memory_dim)
        self.norm_ff = nn.LayerNorm(embed_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(embed_dim, config.feedforward_dim),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(config.feedforward_dim, embed_dim),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        """Process x (N, U, C).

        Args:
          x: (N, U, C).
          mask: boolean, broadcasts with (N, H, U, U), True at tokens that must not be seen.
          memory: (N, S, D), the encoder's output.
          memory_mask: boolean, broadcasts with (N, H, U, S), True at frames that must not be seen.

        Returns:
          (N, U, C)
        """
        normed = self.norm_self_attn(x)
        x = x + self.dropout(self.self_attn(normed, normed, mask))
        x = x + self.dropout(self.src_attn(self.norm_src_attn(x), memory, memory_mask))
        return x + self.dropout(self.feed_forward(self.norm_ff(x)))


class TransformerDecoder(nn.Module):
    """Model of the next token, given those before it and the encoder's output.

    Tokens (N, U) -> logits (N, U, V).

    Args:
      vocab_size: V.
      config: the other sizes.
    """

    def __init__(self, vocab_size: int, config: DecoderConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, config.embed_dim)
        self.pos = AbsolutePositionalEncoding(config.embed_dim, config.dropout)
        self.layers = nn.ModuleList([TransformerDecoderLayer(config) for _ in range(config.num_layers)])
        self.output_layer = nn.Linear(config.embed_dim, vocab_size)

    def forward(self, x: Tensor, memory: Tensor, memory_lens: Tensor) -> Tensor:
        """Compute the logits of the token that follows each given one.

        Args:
          x: (N, U) token ids. Padding at the end needs no mask: no token sees what follows it.
          memory: (N, S, memory_dim) encoder output.
          memory_lens: (N,) its valid frames, at least 1.

        Returns:
          (N, U, V)
        """
        steps = torch.arange(x.size(1), device=x.device)
        mask = steps.unsqueeze(0) > steps.unsqueeze(1)
        frames = torch.arange(memory.size(1), device=memory.device)
        padded = frames.unsqueeze(0) >= memory_lens.to(memory.device).unsqueeze(1)  # (N, S)
        memory_mask = padded.unsqueeze(1).unsqueeze(1)
        h = self.pos(self.embed(x))
        for layer in self.layers:
            h = layer(h, mask, memory, memory_mask)
        return self.output_layer(h)
