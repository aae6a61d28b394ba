"""Self-attention of the first Zipformer.

A layer computes one set of weights, from queries of reduced width, and uses it at two places.
"""

import math
import random
from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.nn.scaling import ScaledLinear, Whiten
from asr_core.ops.attention import attention_weights, attention_weights_plain


class RelPositionalEncoding(nn.Module):
    """Sines and cosines, alternating, of the offset between query and key.

    There are C / 2 frequencies, from 1 down to about 1 / 10000 (Vaswani et al. 2017, section 3.5).

    Args:
      channels: number C of channels, even.
      dropout: dropout rate of the encoding.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.channels = channels
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, left_context_len: int = 0) -> Tensor:
        """Encode the offsets between queries and keys.

        Args:
          x: (T, N, C) queries, of which the number, dtype and device count.
          left_context_len: number L of keys before the first query.

        Returns:
          (1, 2 T - 1 + L, C), the offset from the last query to the first key first.
        """
        offsets = torch.arange(
            x.size(0) + left_context_len - 1, -x.size(0), -1, device=x.device, dtype=torch.float32
        )
        exponents = torch.arange(0, self.channels, 2, device=x.device, dtype=torch.float32) / self.channels
        angles = offsets.unsqueeze(1) * torch.exp(exponents * -math.log(10000.0))
        return self.dropout(
            torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).unsqueeze(0).to(x.dtype)
        )


class RelPositionMultiheadAttention(nn.Module):
    """Self-attention whose scores are ``q . k + p . (W phi(i - j))``.

    Queries and keys have the width A, values half of it.

    Args:
      embed_dim: width C of input and output.
      attention_dim: A, all heads together.
      num_heads: number H of heads; A must be divisible by 2 H.
      pos_dim: width of the positional queries p per head.
    """

    def __init__(self, embed_dim: int, attention_dim: int, num_heads: int, pos_dim: int) -> None:
        super().__init__()
        if attention_dim % (2 * num_heads) != 0:
            raise ValueError(
                f"{num_heads} heads do not divide an attention width of {attention_dim} and half "
                "of it, for values"
            )
        self.attention_dim = attention_dim
        self.num_heads = num_heads
        value_dim = attention_dim // 2
        in_proj_dim = 2 * attention_dim + value_dim + pos_dim * num_heads
        # Scores are not divided by sqrt(A / H). Its fourth root in the initial weights of both
        # queries and keys has the same effect at the start and leaves the scale to be learned.
        self.in_proj = ScaledLinear(
            embed_dim, in_proj_dim, initial_scale=(attention_dim // num_heads) ** -0.25
        )
        # small at first, so that content decides until positions prove useful, and each branch
        # starts close to zero
        self.linear_pos = ScaledLinear(embed_dim, num_heads * pos_dim, bias=False, initial_scale=0.05)
        self.out_proj = ScaledLinear(value_dim, embed_dim, initial_scale=0.05)
        self.in_proj2 = nn.Linear(embed_dim, value_dim, bias=False)
        self.out_proj2 = ScaledLinear(value_dim, embed_dim, initial_scale=0.05)
        self.whiten_keys = self._whiten()
        self.whiten_values = self._whiten()
        self.whiten_values2 = self._whiten()

    def _whiten(self) -> Whiten:
        """Make a module that keeps a head's keys or values from collapsing into few directions."""
        return Whiten(self.num_heads, whitening_limit=2.0, prob=(0.025, 0.25), grad_scale=0.025)

    def forward(self, x: Tensor, pos_emb: Tensor, mask: Optional[Tensor] = None) -> Tuple[Tensor, Tensor]:
        """Attend to all frames.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1, C).
          mask: boolean (N or 1, T or 1, T), True at keys that must not be seen.

        Returns:
          (T, N, C), and the weights (H, N, T, T) for :meth:`forward2`.
        """
        q, k, v, p = self._project(x)
        weights = self._weights(q, self.whiten_keys(k), p, pos_emb, mask)
        return self.out_proj(self._average(self.whiten_values(v), weights)), weights

    def forward2(self, x: Tensor, weights: Tensor) -> Tensor:
        """Average x (T, N, C) by the weights (H, N, T, T) of :meth:`forward`: (T, N, C)."""
        return self.out_proj2(self._average(self.whiten_values2(self.in_proj2(x)), weights))

    def streaming_forward(
        self, x: Tensor, pos_emb: Tensor, cached_key: Tensor, cached_val: Tensor, mask: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Attend from one chunk to itself and the cached frames before it.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1 + L, C).
          cached_key, cached_val: (L, N, A), (L, N, A / 2) of the L frames before the chunk.
          mask: boolean (N, 1, L + T), True at keys that must not be seen.

        Returns:
          (T, N, C), the weights (H, N, T, L + T), and the next cached_key, cached_val.
        """
        q, k, v, p = self._project(x)
        k, v = torch.cat([cached_key, k], dim=0), torch.cat([cached_val, v], dim=0)
        weights = self._weights(q, k, p, pos_emb, mask)
        return self.out_proj(self._average(v, weights)), weights, k[x.size(0) :], v[x.size(0) :]

    def streaming_forward2(self, x: Tensor, weights: Tensor, cached_val: Tensor) -> Tuple[Tensor, Tensor]:
        """Average over one chunk and the cached frames before it, as :meth:`forward2`.

        Args:
          x: (T, N, C).
          weights: (H, N, T, L + T).
          cached_val: (L, N, A / 2).

        Returns:
          (T, N, C) and the next cached_val.
        """
        v = torch.cat([cached_val, self.in_proj2(x)], dim=0)
        return self.out_proj2(self._average(v, weights)), v[x.size(0) :]

    def _project(self, x: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Project x (T, N, C) to queries, keys, values and positional queries.

        Returns:
          (T, N, A) twice, (T, N, A / 2) and (T, N, H * pos_dim).
        """
        a, x = self.attention_dim, self.in_proj(x)
        # gradients of slices would each be filled with zeros and then added
        parts = x.split([a, a, a // 2, x.size(-1) - 2 * a - a // 2], dim=-1)
        return parts[0], parts[1], parts[2], parts[3]

    def _weights(self, q: Tensor, k: Tensor, p: Tensor, pos_emb: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Return the weights (H, N, T, S) of queries q, p (T, N, .) over keys k (S, N, A)."""
        q, k, p = self._heads(q), self._heads(k), self._heads(p)
        pos = self._heads(self.linear_pos(pos_emb).transpose(0, 1)).squeeze(1)
        if torch.jit.is_scripting() or torch.jit.is_tracing():
            return attention_weights_plain(q, k, p, pos, mask)
        # In one of ten batches, scores beyond 25 get a tiny penalty. They saturate the softmax,
        # whose gradient then vanishes, so nothing else would bring them back.
        penalty = 1.0e-4 if self.training and random.random() < 0.1 else 0.0
        return attention_weights(q, k, p, pos, mask, limit=25.0, penalty=penalty)[0]

    def _average(self, values: Tensor, weights: Tensor) -> Tensor:
        """Average values (S, N, A / 2) by weights (H, N, T, S): (T, N, A / 2)."""
        return torch.matmul(weights, self._heads(values)).permute(2, 1, 0, 3).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        """Split (T, N, H * D) into heads: (H, N, T, D)."""
        return x.reshape(x.size(0), x.size(1), self.num_heads, -1).permute(2, 1, 0, 3)
