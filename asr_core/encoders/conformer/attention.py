"""Self-attention with relative positions.

They are encoded as in Transformer-XL (Dai et al. 2019, https://arxiv.org/abs/1901.02860, section
3.3), or learned.
"""

import math
from typing import TYPE_CHECKING, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.ops.attention import attention_weights, attention_weights_plain


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Encode positions as sines, then cosines, at ``dim / 2`` frequencies from 1 down to 1 / 10000.

    The frequencies are those of Vaswani et al. 2017, section 3.5.

    Args:
      positions: (S, T, ...) numbers of frames.
      dim: width C of the encoding, even.

    Returns:
      (S, T, ..., C), float32.
    """
    half = dim // 2
    exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / max(1, half - 1)
    angles = positions.to(torch.float32).unsqueeze(-1) * torch.exp(exponents * -math.log(10000.0))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def relative_positions(num_queries: int, num_keys: int, like: Tensor) -> Tensor:
    """Encode the position of each query minus that of each key, where the last of both coincide.

    Args:
      num_queries: T.
      num_keys: S.
      like: a tensor with the width C, dtype and device of the result.

    Returns:
      (1, T - 1 + S, C)
    """
    offsets = torch.arange(num_keys - 1, -num_queries, -1, device=like.device)
    return sinusoids(offsets, like.size(-1)).to(like.dtype).unsqueeze(0)


class MultiheadAttention(nn.Module):
    """Self-attention whose scores are ``q . k / sqrt(C / H)``, without positions.

    Args:
      embed_dim: width C of input, output and all heads together.
      num_heads: number H of heads; it divides C.
      dropout: dropout rate of the weights.
      per_dim_scale: multiply each dimension of the queries by ``softplus(s) / softplus(0)``, with s
        learned and shared by the heads.
    """

    if TYPE_CHECKING:
        per_dim_scale: Optional[Tensor]

    def __init__(
        self, embed_dim: int, num_heads: int, *, dropout: float = 0.1, per_dim_scale: bool = False
    ) -> None:
        super().__init__()
        if embed_dim % num_heads != 0:
            raise ValueError(f"{num_heads} heads do not divide a width of {embed_dim}")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.in_proj = nn.Linear(embed_dim, 3 * embed_dim)
        self._add_positions(embed_dim)
        self.register_parameter(
            "per_dim_scale", nn.Parameter(torch.zeros(self.head_dim)) if per_dim_scale else None
        )
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def _add_positions(self, embed_dim: int) -> None:
        """Create the parameters for positions, if there are any."""

    def forward(self, x: Tensor, pos_emb: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Attend to all frames.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1, C), see :func:`relative_positions`; only
            :class:`RelPositionMultiheadAttention` uses it.
          mask: boolean (N or 1, T or 1, T), True at keys that must not be seen.

        Returns:
          (T, N, C)
        """
        q, k, v = self.in_proj(x).chunk(3, dim=2)
        return self._attend(q, k, v, pos_emb, mask)

    def streaming_forward(
        self, x: Tensor, pos_emb: Tensor, cached_key: Tensor, cached_value: Tensor, mask: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Attend from one chunk to itself and the cached frames before it.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1 + left, C).
          cached_key, cached_value: (left, N, C).
          mask: boolean (N, 1 or T, left + T).

        Returns:
          (T, N, C) and the next cached_key, cached_value.
        """
        q, k, v = self.in_proj(x).chunk(3, dim=2)
        k, v = torch.cat([cached_key, k], dim=0), torch.cat([cached_value, v], dim=0)
        y = self._attend(q, k, v, pos_emb, mask)
        return y, k[x.size(0) :], v[x.size(0) :]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, pos_emb: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Attend with queries (T, N, C) to keys and values (S, N, C): (T, N, C)."""
        keys, values = self._heads(k), self._heads(v)
        by_content, by_position, pos = self._queries(self._heads(q), keys.size(2), pos_emb)
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            weights = attention_weights_plain(by_content, keys, by_position, pos, mask)
        else:
            weights = attention_weights(by_content, keys, by_position, pos, mask)[0]
        y = torch.matmul(self.dropout(weights), values)  # (H, N, T, S) (H, N, S, D) -> (H, N, T, D)
        return self.out_proj(y.permute(2, 1, 0, 3).flatten(2))

    def _queries(self, q: Tensor, num_keys: int, pos_emb: Tensor) -> Tuple[Tensor, Optional[Tensor], Tensor]:
        """Return what the scores are made of.

        Args:
          q: (H, N, T, D).
          num_keys: S.
          pos_emb: (1, T - 1 + S, C).

        Returns:
          Queries (H, N, T, D) for keys, queries (H, N, T, D) for positions or None, and the
          positions (H, T - 1 + S, D) by offset.
        """
        nothing: Optional[Tensor] = None
        return (
            self._weighted(q) * self.head_dim**-0.5,
            nothing,
            q.new_zeros(self.num_heads, q.size(2) - 1 + num_keys, 0),
        )

    def _weighted(self, q: Tensor) -> Tensor:
        """Multiply each dimension of queries (H, N, T, D) by its learned factor."""
        if self.per_dim_scale is None:
            return q
        return q * (F.softplus(self.per_dim_scale) / math.log(2.0)).to(q.dtype)

    def _heads(self, x: Tensor) -> Tensor:
        """Split (T, N, H * D) into heads: (H, N, T, D)."""
        return x.reshape(x.size(0), x.size(1), self.num_heads, self.head_dim).permute(2, 1, 0, 3)


class RelPositionMultiheadAttention(MultiheadAttention):
    """Self-attention whose scores are ``(q + u) . k + (q + v) . (W_r phi(i - j))``.

    They are those of Dai et al. 2019, section 3.3, with learned u and v.

    Args:
      embed_dim, num_heads, dropout, per_dim_scale: see :class:`MultiheadAttention`; the positional
        encoding has the width C, too.
      scale_bias: divide u and v by sqrt(C / H), too, and not only the queries.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        dropout: float = 0.1,
        per_dim_scale: bool = False,
        scale_bias: bool = False,
    ) -> None:
        super().__init__(embed_dim, num_heads, dropout=dropout, per_dim_scale=per_dim_scale)
        self.scale_bias = scale_bias

    def _add_positions(self, embed_dim: int) -> None:
        self.linear_pos = nn.Linear(embed_dim, embed_dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))

    def _queries(self, q: Tensor, num_keys: int, pos_emb: Tensor) -> Tuple[Tensor, Optional[Tensor], Tensor]:
        scale = self.head_dim**-0.5
        pos = self._heads(self.linear_pos(pos_emb).transpose(0, 1)).squeeze(1)
        q = self._weighted(q)
        u, v = (
            self.pos_bias_u.to(q.dtype).unsqueeze(1).unsqueeze(1),
            self.pos_bias_v.to(q.dtype).unsqueeze(1).unsqueeze(1),
        )
        if self.scale_bias:
            return (q + u) * scale, (q + v) * scale, pos
        return q * scale + u, q * scale + v, pos


class KeyShiftAttention(MultiheadAttention):
    """Self-attention whose scores are ``q . (k + a[j - i]) / sqrt(C / H)``.

    The vector a is learned for each offset and shared by the heads. Offsets beyond ``clip`` count
    as ``clip`` (Shaw et al. 2018, https://arxiv.org/abs/1803.02155, section 3.2, for keys only).

    Args:
      embed_dim, num_heads, dropout, per_dim_scale: see :class:`MultiheadAttention`.
      clip: largest offset that is distinguished from larger ones.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        clip: int = 400,
        dropout: float = 0.1,
        per_dim_scale: bool = False,
    ) -> None:
        super().__init__(embed_dim, num_heads, dropout=dropout, per_dim_scale=per_dim_scale)
        self.clip = clip
        self.key_shift = nn.Parameter(torch.empty(2 * clip + 1, self.head_dim))
        nn.init.xavier_uniform_(self.key_shift)

    def _queries(self, q: Tensor, num_keys: int, pos_emb: Tensor) -> Tuple[Tensor, Optional[Tensor], Tensor]:
        key_after_query = torch.arange(1 - num_keys, q.size(2), device=q.device)
        pos = self.key_shift[key_after_query.clamp(-self.clip, self.clip) + self.clip].to(q.dtype)
        q = self._weighted(q) * self.head_dim**-0.5
        return q, q, pos.unsqueeze(0).expand(self.num_heads, -1, -1)
