"""Attention of the Zipformer (Yao et al. 2023, section 3.2).

A layer computes attention weights once and uses them in three modules.
"""

import math
import random
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.nn.draws import Chance, Drawn
from asr_core.nn.scaling import Balancer, FloatLike, ScaledLinear, ScheduledFloat, Whiten, whitening_limit
from asr_core.ops.attention import attention_weights, attention_weights_as_drawn, attention_weights_plain


class CompactRelPositionalEncoding(nn.Module):
    """Encoding of the offset between two frames, logarithmic so that it is finest for near frames.

    With E channels, offset x and c = sqrt(E): ``x' = c sign(x) (ln(|x| + c) - ln c)`` grows like x
    up to about c frames and like its logarithm beyond; ``a = atan(2 pi x' / (length_factor E))``
    fits it into half a turn. The channels are cos(k a), sin(k a) for k = 1 .. E/2; the last one is
    replaced by 1, a bias for the projection.

    Args:
      embed_dim: number E of channels, even.
      dropout_rate: dropout rate of the encoding.
      length_factor: values above 1 extend the range of fine resolution.
    """

    def __init__(self, embed_dim: int, dropout_rate: FloatLike, length_factor: float = 1.0) -> None:
        super().__init__()
        if embed_dim % 2 != 0 or length_factor < 1.0:
            raise ValueError(
                f"the positional encoding needs an even width and a factor >= 1, got {embed_dim} "
                f"and {length_factor}"
            )
        self.embed_dim = embed_dim
        self.length_factor = length_factor
        self.dropout_rate = dropout_rate
        self.table = self._make_table(
            1000, torch.zeros(1)
        )  # not a buffer, so that it stays out of checkpoints

    def _make_table(self, num_frames: int, like: Tensor) -> Tensor:
        """Return the encodings (2 num_frames - 1, E) of all offsets, on the device of ``like``."""
        x = torch.arange(-(num_frames - 1), num_frames, device=like.device, dtype=torch.float32).unsqueeze(1)
        width = math.sqrt(self.embed_dim)
        compressed = width * x.sign() * ((x.abs() + width).log() - math.log(width))
        angle = (compressed / (self.length_factor * self.embed_dim / (2.0 * math.pi))).atan()
        angles = angle * torch.arange(1, self.embed_dim // 2 + 1, device=like.device, dtype=torch.float32)
        table = torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1)
        table[:, -1] = 1.0
        return table.to(like.dtype)

    def forward(self, x: Tensor, left_context_len: int = 0) -> Tensor:
        """Encode the offsets between queries and keys.

        Args:
          x: (T, N, C) queries, of which the number, dtype and device count.
          left_context_len: number L of keys before the first query.

        Returns:
          (1, 2 T - 1 + L, E), the offset from the last query to the first key first.
        """
        num_queries = x.size(0)
        num_keys = num_queries + left_context_len
        table = self.table
        if table.size(0) < 2 * num_keys - 1 or table.device != x.device or table.dtype != x.dtype:
            table = self._make_table(max(num_keys, (table.size(0) + 1) // 2), x)
            self.table = table
        centre = table.size(0) // 2
        pos_emb = table[centre - num_keys + 1 : centre + num_queries].unsqueeze(0)
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return pos_emb
        return torch.nn.functional.dropout(pos_emb, float(self.dropout_rate), self.training)


class RelPositionMultiheadAttentionWeights(Chance):
    """Attention weights from content and relative position.

    Args:
      embed_dim: width C of the input.
      num_heads: number H of heads.
      query_head_dim, pos_head_dim: widths of queries (and keys) and of positional queries per head.
      pos_dim: width of the positional encoding.
      pos_emb_skip_rate: probability in training of leaving positions out; by default 0.5 at the
        start, falling to 0 over 4000 batches, so that the heads first learn to use content.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        query_head_dim: int,
        pos_head_dim: int,
        pos_dim: int,
        pos_emb_skip_rate: Optional[FloatLike] = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_head_dim = query_head_dim
        self.pos_head_dim = pos_head_dim
        self.pos_emb_skip_rate = (
            ScheduledFloat((0.0, 0.5), (4000.0, 0.0)) if pos_emb_skip_rate is None else pos_emb_skip_rate
        )
        # Scores are not divided by sqrt(query_head_dim). Its fourth root in the initial weights of
        # both queries and keys has the same effect at the start and leaves the scale to be learned.
        self.in_proj = ScaledLinear(
            embed_dim, num_heads * (2 * query_head_dim + pos_head_dim), initial_scale=query_head_dim**-0.25
        )
        # keeps the keys of each head from collapsing into few directions (appendix A.2)
        self.whiten_keys = Whiten(
            num_heads, whitening_limit=whitening_limit(3.0), prob=(0.025, 0.25), grad_scale=0.025
        )
        # Softmax ignores a constant that is added to all keys, so the gradient of their bias is
        # rounding error. Adam normalises it to full steps, and the bias grows large. A balancer of
        # very low probability is enough to keep each dimension's mean near zero.
        self.balance_keys = Balancer(
            num_heads * query_head_dim,
            min_positive=0.4,
            max_positive=0.6,
            min_abs=0.0,
            max_abs=100.0,
            prob=0.025,
        )
        # small at first, so that content decides until positions prove useful
        self.linear_pos = ScaledLinear(pos_dim, num_heads * pos_head_dim, bias=False, initial_scale=0.05)

    def forward(self, x: Tensor, pos_emb: Tensor, mask: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Compute the weights of whole sequences.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1, E).
          mask: boolean, broadcasts with (N, T, T), True at keys that must not be seen.

        Returns:
          Weights (H, N, T, T), and those of the first head again, (1, N, T, T), whose gradient is
          kept apart.
        """
        q, k, p = self._project(x)
        k = self.whiten_keys(self.balance_keys(k))
        q, k, p, pos = self._split(q, k, p, pos_emb)
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            weights = attention_weights_plain(q, k, p, pos, mask)
            return weights, weights[0:1]
        if not self.training:
            return attention_weights(q, k, p, pos, mask)
        if self.draws is not None:
            return attention_weights_as_drawn(q, k, p, pos, mask, 25.0, self.draws.table, self.index)
        penalty, use_pos = self._decide()
        return attention_weights(q, k, p if use_pos else None, pos, mask, limit=25.0, penalty=penalty)

    def _decide(self) -> Tuple[float, bool]:
        """Draw a penalty of large scores, and whether positions are used.

        In one of ten batches, scores beyond 25 get a tiny penalty. They saturate the softmax, whose
        gradient then vanishes, so nothing else would bring them back.
        """
        penalty = 1.0e-4 if random.random() < 0.1 else 0.0
        return penalty, random.random() >= float(self.pos_emb_skip_rate)

    def draw(self, x: Tensor) -> Drawn:
        """Draw what :func:`attention_weights_as_drawn` reads, but for uniform weights."""
        return Drawn(self._decide())

    def chances(self) -> List[Chance]:
        """Return the modules that decide by chance, in the order in which they act."""
        return [self.balance_keys, self.whiten_keys, self]

    def _split(
        self, q: Tensor, k: Tensor, p: Tensor, pos_emb: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Split queries (T, N, .), keys (S, N, .), positional queries and positions into heads.

        Returns:
          (H, N, T, D), (H, N, S, D), (H, N, T, E) and (H, T - 1 + S, E).
        """
        pos = self._heads(self.linear_pos(pos_emb).transpose(0, 1), self.pos_head_dim).squeeze(1)
        return (
            self._heads(q, self.query_head_dim),
            self._heads(k, self.query_head_dim),
            self._heads(p, self.pos_head_dim),
            pos,
        )

    def _project(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Project x (T, N, C) to queries, keys and positional queries.

        Returns:
          (T, N, H * query_head_dim) twice, and (T, N, H * pos_head_dim).
        """
        query_dim, pos_dim = self.num_heads * self.query_head_dim, self.num_heads * self.pos_head_dim
        # gradients of slices would each be filled with zeros and then added
        parts = self.in_proj(x).split([query_dim, query_dim, pos_dim], dim=-1)
        return parts[0], parts[1], parts[2]

    def _heads(self, x: Tensor, head_dim: int) -> Tensor:
        """Split (T, N, H * D) into heads: (H, N, T, D)."""
        return x.reshape(x.size(0), x.size(1), self.num_heads, head_dim).permute(2, 1, 0, 3)

    def streaming_forward(
        self, x: Tensor, pos_emb: Tensor, cached_key: Tensor, left_context_len: int, mask: Optional[Tensor]
    ) -> Tuple[Tensor, Tensor]:
        """Compute the weights of one chunk of each stream.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1 + L, E).
          cached_key: (L, N, H * query_head_dim) keys before the chunk.
          left_context_len: number L of frames before the chunk.
          mask: boolean, broadcasts with (N, T, L + T), True at keys that must not be seen.

        Returns:
          Weights (H, N, T, L + T) and the next cached_key.
        """
        q, k, p = self._project(x)
        k = torch.cat([cached_key, k], dim=0)
        cached_key = k[k.size(0) - left_context_len :]
        q, k, p, pos = self._split(q, k, p, pos_emb)
        weights = attention_weights_plain(q, k, p, pos, mask)
        return weights, cached_key


class SelfAttention(nn.Module):
    """Average of values by given attention weights.

    Args:
      embed_dim: width C of input and output.
      num_heads: number H of heads.
      value_head_dim: width D of values per head.
    """

    def __init__(self, embed_dim: int, num_heads: int, value_head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(embed_dim, num_heads * value_head_dim)
        # a small initial scale makes each residual branch, and so each layer, start close to the
        # identity
        self.out_proj = ScaledLinear(num_heads * value_head_dim, embed_dim, initial_scale=0.05)
        self.whiten = Whiten(
            1, whitening_limit=whitening_limit(7.5, ratio=3.0), prob=(0.025, 0.25), grad_scale=0.01
        )

    def forward(self, x: Tensor, attn_weights: Tensor) -> Tensor:
        """Average whole sequences: x (T, N, C) by attn_weights (H, N, T, T) -> (T, N, C)."""
        return self.whiten(self.out_proj(self._average(self.in_proj(x), attn_weights)))

    def _average(self, values: Tensor, attn_weights: Tensor) -> Tensor:
        """Average values (S, N, H * D) by attn_weights (H, N, T, S): (T, N, H * D)."""
        values = values.reshape(values.size(0), values.size(1), self.num_heads, -1).permute(2, 1, 0, 3)
        return torch.matmul(attn_weights, values).permute(2, 1, 0, 3).flatten(2)

    def streaming_forward(
        self, x: Tensor, attn_weights: Tensor, cached_val: Tensor, left_context_len: int
    ) -> Tuple[Tensor, Tensor]:
        """Average over one chunk and the frames before it.

        Args:
          x: (T, N, C).
          attn_weights: (H, N, T, L + T).
          cached_val: (L, N, H * D) values before the chunk.
          left_context_len: number L of frames before the chunk.

        Returns:
          (T, N, C) and the next cached_val.
        """
        values = torch.cat([cached_val, self.in_proj(x)], dim=0)
        return self.out_proj(self._average(values, attn_weights)), values[values.size(0) - left_context_len :]


class NonlinAttention(nn.Module):
    """Non-linear attention: gated values, averaged by the weights of one head and gated again.

    With projections s, v, g of the input: ``W_out (g * (A (tanh(s) * v)))`` (Yao et al. 2023,
    section 3.2).

    Args:
      channels: width C of input and output.
      hidden_channels: width D inside.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.in_proj = nn.Linear(channels, hidden_channels * 3)
        # The gate tanh(s) stays between off (|s| near 0) and saturated (|s| above 5). Its sign may
        # become one-sided only slowly, so that a channel is not lost to one sign early in training.
        self.balancer = Balancer(
            hidden_channels,
            min_positive=ScheduledFloat((0.0, 0.25), (20000.0, 0.05)),
            max_positive=ScheduledFloat((0.0, 0.75), (20000.0, 0.95)),
            min_abs=0.5,
            max_abs=5.0,
        )
        self.out_proj = ScaledLinear(hidden_channels, channels, initial_scale=0.05)
        self.whiten1 = Whiten(1, whitening_limit=whitening_limit(5.0), prob=(0.025, 0.25), grad_scale=0.01)
        self.whiten2 = Whiten(
            1, whitening_limit=whitening_limit(5.0, ratio=3.0), prob=(0.025, 0.25), grad_scale=0.01
        )

    def forward(self, x: Tensor, attn_weights: Tensor) -> Tensor:
        """Average whole sequences: x (T, N, C) by attn_weights (1, N, T, T) -> (T, N, C)."""
        s, x, y = self.in_proj(x).chunk(3, dim=2)  # (T, N, D) each
        x = self.whiten1(x) * torch.tanh(self.balancer(s))
        x = torch.matmul(attn_weights.squeeze(0), x.transpose(0, 1)).transpose(0, 1)
        return self.whiten2(self.out_proj(x * y))

    def chances(self) -> List[Chance]:
        """Return the modules that decide by chance, in the order in which they act."""
        return [self.whiten1, self.balancer, self.whiten2]

    def streaming_forward(
        self, x: Tensor, attn_weights: Tensor, cached_x: Tensor, left_context_len: int
    ) -> Tuple[Tensor, Tensor]:
        """Average over one chunk and the frames before it.

        Args:
          x: (T, N, C).
          attn_weights: (1, N, T, L + T).
          cached_x: (1, N, L, D) gated values before the chunk.
          left_context_len: number L of frames before the chunk.

        Returns:
          (T, N, C) and the next cached_x.
        """
        s, x, y = self.in_proj(x).chunk(3, dim=2)  # (T, N, D) each
        x = torch.cat([cached_x, (x * torch.tanh(s)).transpose(0, 1).unsqueeze(0)], dim=2)  # (1, N, L + T, D)
        cached_x = x[:, :, x.size(2) - left_context_len :]
        x = torch.matmul(attn_weights, x).squeeze(0).transpose(0, 1)
        return self.out_proj(x * y), cached_x
