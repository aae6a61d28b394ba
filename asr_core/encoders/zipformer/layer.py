"""One layer of the Zipformer (Yao et al. 2023, section 3.2 and figure 2)."""

import random
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from asr_core.encoders.zipformer.attention import (
    NonlinAttention,
    RelPositionMultiheadAttentionWeights,
    SelfAttention,
)
from asr_core.encoders.zipformer.convolution import ConvolutionModule
from asr_core.encoders.zipformer.feedforward import FeedforwardModule
from asr_core.nn.bypass import BypassModule
from asr_core.nn.draws import Chance, Drawn, given
from asr_core.nn.scaling import Balancer, BiasNorm, FloatLike, ScheduledFloat, Whiten, whitening_limit
from asr_core.ops.host import sent


def _add(x: Tensor, branch: Tensor, keep: Optional[Tensor]) -> Tensor:
    """Add a branch (T, N, C) to x (T, N, C) for all sequences, or where ``keep`` (N, 1) is 1."""
    return x + branch if keep is None else torch.addcmul(x, branch, keep)


class Zipformer2EncoderLayer(Chance):
    """Three feed-forward, two self-attention, two convolution modules and one non-linear attention.

    Args:
      embed_dim: width C.
      pos_dim: width E of the positional encoding.
      num_heads, query_head_dim, pos_head_dim, value_head_dim: sizes of the attention.
      feedforward_dim: width of the middle feed-forward module; the first has 3/4, the last 5/4 of
        it.
      cnn_module_kernel: odd.
      dropout: dropout rate of the feed-forward modules.
      causal: use chunk-causal convolutions.
    """

    compiled = "drawn"

    def __init__(
        self,
        embed_dim: int,
        *,
        pos_dim: int,
        num_heads: int,
        query_head_dim: int,
        pos_head_dim: int,
        value_head_dim: int,
        feedforward_dim: int,
        cnn_module_kernel: int,
        dropout: FloatLike,
        causal: bool,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        # Stochastic depth within the layer (Huang et al. 2016), per sequence. The modules that mix
        # frames are dropped often at first, so that the feed-forward modules learn first and
        # convolutions do not take over; later the full layer is trained, as it is used.
        # Feed-forward modules 2 and 3 are dropped rarely but for longer, to keep their output from
        # outgrowing the residual stream.
        self.attention_skip_rate = ScheduledFloat((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.conv_skip_rate = ScheduledFloat((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.ff2_skip_rate = ScheduledFloat((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        self.ff3_skip_rate = ScheduledFloat((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        # Non-linear attention sometimes gets uniform weights, so that it learns to use a mean over
        # the sequence before attention weights mean anything.
        self.const_attention_rate = ScheduledFloat((0.0, 0.25), (4000.0, 0.025))
        # unused; it keeps state dicts interchangeable with icefall's
        self.bypass_scale = nn.Parameter(torch.full((embed_dim,), 0.5))
        # their scales stay above 0.9 at first, falling to 0.2 over 20000 batches: no layer may opt
        # out early on
        self.bypass = BypassModule(embed_dim)
        self.bypass_mid = BypassModule(embed_dim)
        self.self_attn_weights = RelPositionMultiheadAttentionWeights(
            embed_dim,
            num_heads,
            query_head_dim=query_head_dim,
            pos_head_dim=pos_head_dim,
            pos_dim=pos_dim,
        )
        self.self_attn1 = SelfAttention(embed_dim, num_heads, value_head_dim)
        self.self_attn2 = SelfAttention(embed_dim, num_heads, value_head_dim)
        # wider towards the end of the layer, at the same total size as three of the middle width
        self.feed_forward1 = FeedforwardModule(embed_dim, (feedforward_dim * 3) // 4, dropout)
        self.feed_forward2 = FeedforwardModule(embed_dim, feedforward_dim, dropout)
        self.feed_forward3 = FeedforwardModule(embed_dim, (feedforward_dim * 5) // 4, dropout)
        self.nonlin_attention = NonlinAttention(embed_dim, hidden_channels=3 * embed_dim // 4)
        self.conv_module1 = ConvolutionModule(embed_dim, cnn_module_kernel, causal)
        self.conv_module2 = ConvolutionModule(embed_dim, cnn_module_kernel, causal)
        self.norm = BiasNorm(embed_dim)
        # Before the norm and at the output, channels stay nearly zero-centred and of moderate size
        # (appendix A.2): a large offset would dominate BiasNorm's root mean square, and carry
        # nothing.
        self.balancer1 = Balancer(embed_dim, min_positive=0.45, max_positive=0.55, min_abs=0.2, max_abs=4.0)
        self.balancer_na = self._branch_balancer(ScheduledFloat((0.0, 0.004), (4000.0, 0.02)), 100.0)
        self.balancer_ff2 = self._branch_balancer(ScheduledFloat((0.0, 0.0), (4000.0, 0.1), default=0.0), 2.0)
        self.balancer_ff3 = self._branch_balancer(ScheduledFloat((0.0, 0.0), (4000.0, 0.2), default=0.0), 4.0)
        # The limit triples over 20000 batches: whitening matters while directions form, and should
        # not get in the way of a model that has settled.
        self.whiten = Whiten(
            1, whitening_limit=whitening_limit(4.0, ratio=3.0), prob=(0.025, 0.25), grad_scale=0.01
        )
        self.balancer2 = Balancer(embed_dim, min_positive=0.45, max_positive=0.55, min_abs=0.1, max_abs=4.0)

    def _branch_balancer(self, min_abs: FloatLike, max_abs: float) -> Balancer:
        """Make a balancer that keeps the output of a residual branch from staying too small.

        The bound starts near 0, where branches start, and rises over the warm-up. Its probability
        is low, since it mends a rare fault, which may take its time.
        """
        return Balancer(
            self.embed_dim, min_positive=0.3, max_positive=0.7, min_abs=min_abs, max_abs=max_abs, prob=0.05
        )

    def forward(
        self,
        x: Tensor,
        pos_emb: Tensor,
        chunk_size: int = -1,
        mask: Optional[Tensor] = None,
        pad_mask: Optional[Tensor] = None,
        lens: Optional[Tensor] = None,
    ) -> Tensor:
        """Encode whole sequences.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1, E).
          chunk_size: frames per chunk for the convolutions; -1 for all.
          mask: boolean, broadcasts with (N, T, T), True at keys that must not be seen.
          pad_mask: (N, T) boolean, True at padding.
          lens: (N,) frames of sequences that may end before their chunk, or None.

        Returns:
          (T, N, C)
        """
        x_orig = x
        # from the layer's input, for all three modules that average over frames
        attn_weights, first_head = self.self_attn_weights(x, pos_emb, mask)
        x = x + self.feed_forward1(x)
        keep = self._draw_keep_masks(x)
        x = _add(x, self.balancer_na(self.nonlin_attention(x, self._sometimes_uniform(first_head))), keep[0])
        x = _add(x, self.self_attn1(x, attn_weights), keep[0])
        x = _add(x, self.conv_module1(x, pad_mask, chunk_size, lens), keep[1])
        x = _add(x, self.balancer_ff2(self.feed_forward2(x)), keep[2])
        x = self.bypass_mid(x_orig, x)
        x = _add(x, self.self_attn2(x, attn_weights), keep[0])
        x = _add(x, self.conv_module2(x, pad_mask, chunk_size, lens), keep[3])
        x = _add(x, self.balancer_ff3(self.feed_forward3(x)), keep[4])
        x = self.norm(self.balancer1(x))
        x = self.bypass(x_orig, x)
        return self.whiten(self.balancer2(x))

    def _draw_keep_masks(self, x: Tensor) -> List[Optional[Tensor]]:
        """Draw masks (N, 1) of the sequences that keep a branch; None where all do.

        They are those of attention, convolution 1, feed-forward 2, convolution 2, feed-forward 3.
        """
        keep: List[Optional[Tensor]] = [None, None, None, None, None]
        if torch.jit.is_scripting() or torch.jit.is_tracing() or not self.training:
            return keep
        if self.draws is not None:
            return list(given(self).unbind(0))
        rates = self._skip_rates()
        drawn = torch.rand((len(rates), x.size(1), 1), device=x.device)  # (5, N, 1)
        return [(d > rate).to(x.dtype) if rate > 0.0 else None for d, rate in zip(drawn, rates)]

    def _skip_rates(self) -> List[float]:
        """Return the present rates of the branches that :meth:`_draw_keep_masks` names."""
        attention, conv = float(self.attention_skip_rate), float(self.conv_skip_rate)
        return [attention, conv, float(self.ff2_skip_rate), conv, float(self.ff3_skip_rate)]

    def draw(self, x: Tensor) -> Drawn:
        """Draw which sequences of x (T, N, C) keep a branch, (5, N, 1), and whether non-linear
        attention gets uniform weights.
        """
        rates = [rate if rate > 0.0 else -1.0 for rate in self._skip_rates()]
        least = sent(torch.tensor(rates), x.device)
        keep = torch.rand((len(rates), x.size(1), 1), device=x.device) > least.view(-1, 1, 1)
        assert self.draws is not None
        row = self.draws.rows[self.self_attn_weights.index]  # whose operator makes them
        row[2] = float(random.random() < float(self.const_attention_rate))
        return Drawn(tensor=keep.to(x.dtype))

    def chances(self) -> List[Chance]:
        """Return the modules that decide by chance, in the order in which they act."""
        return [
            *self.self_attn_weights.chances(),
            *self.feed_forward1.chances(),
            self,
            *self.nonlin_attention.chances(),
            self.balancer_na,
            self.self_attn1.whiten,
            *self.conv_module1.chances(),
            *self.feed_forward2.chances(),
            self.balancer_ff2,
            self.bypass_mid,
            self.self_attn2.whiten,
            *self.conv_module2.chances(),
            *self.feed_forward3.chances(),
            self.balancer_ff3,
            self.balancer1,
            self.norm,
            self.bypass,
            self.balancer2,
            self.whiten,
        ]

    def _sometimes_uniform(self, weights: Tensor) -> Tensor:
        """Return a head's weights (1, N, T, T), sometimes made uniform over the frames it sees."""
        if not torch.jit.is_scripting() and not torch.jit.is_tracing() and self.training:
            if self.draws is None and random.random() < float(self.const_attention_rate):
                seen = (weights > 0.0).to(weights.dtype)
                weights = seen / seen.sum(dim=-1, keepdim=True)
        return weights

    def streaming_forward(
        self, x: Tensor, pos_emb: Tensor, states: List[Tensor], left_context_len: int, mask: Tensor
    ) -> Tuple[Tensor, List[Tensor]]:
        """Encode one chunk of each stream.

        Args:
          x: (T, N, C).
          pos_emb: (1, 2 T - 1 + L, E).
          states: cached_key, cached_nonlin_attn, cached_val1, cached_val2, cached_conv1,
            cached_conv2.
          left_context_len: number L of frames before the chunk.
          mask: (N, L + T) boolean, True at keys that must not be seen.

        Returns:
          (T, N, C) and the next states.
        """
        x_orig = x
        pad_mask = mask[:, left_context_len:]
        attn_weights, cached_key = self.self_attn_weights.streaming_forward(
            x, pos_emb, states[0], left_context_len, mask.unsqueeze(1)
        )
        x = x + self.feed_forward1(x)
        y, cached_nonlin_attn = self.nonlin_attention.streaming_forward(
            x, attn_weights[0:1], states[1], left_context_len
        )
        x = x + y
        y, cached_val1 = self.self_attn1.streaming_forward(x, attn_weights, states[2], left_context_len)
        x = x + y
        y, cached_conv1 = self.conv_module1.streaming_forward(x, states[4], pad_mask)
        x = x + y
        x = x + self.feed_forward2(x)
        x = self.bypass_mid(x_orig, x)
        y, cached_val2 = self.self_attn2.streaming_forward(x, attn_weights, states[3], left_context_len)
        x = x + y
        y, cached_conv2 = self.conv_module2.streaming_forward(x, states[5], pad_mask)
        x = x + y
        x = x + self.feed_forward3(x)
        x = self.bypass(x_orig, self.norm(x))
        return x, [cached_key, cached_nonlin_attn, cached_val1, cached_val2, cached_conv1, cached_conv2]
