"""The stateless predictor of a transducer (Ghodsi et al. 2020)."""

import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.scaling import Balancer


class StatelessPredictor(nn.Module):
    """Embeddings of the last few tokens, mixed by a grouped convolution.

    Args:
      vocab_size: number of tokens.
      decoder_dim: width C of the output, a multiple of 4.
      blank_id: id of the blank.
      context_size: number of tokens that it sees, at least 1.
    """

    def __init__(self, vocab_size: int, decoder_dim: int, blank_id: int, context_size: int) -> None:
        super().__init__()
        if context_size < 1:
            raise ValueError(f"context_size must be at least 1, got {context_size}")
        self.embedding = nn.Embedding(vocab_size, decoder_dim)
        # Embeddings start at the scale 1 of nn.Embedding; the bounds keep ScaledAdam from shrinking
        # or growing them, to which what follows is hardly sensitive. It is seldom needed, hence the
        # low probability.
        self.balancer = Balancer(
            decoder_dim, min_positive=0.0, max_positive=1.0, min_abs=0.5, max_abs=1.0, prob=0.05
        )
        self.blank_id = blank_id
        self.context_size = context_size
        self.vocab_size = vocab_size
        self.conv: nn.Module = nn.Identity()
        self.balancer2: nn.Module = nn.Identity()
        if context_size > 1:
            self.conv = nn.Conv1d(decoder_dim, decoder_dim, context_size, groups=decoder_dim // 4, bias=False)
            self.balancer2 = Balancer(
                decoder_dim, min_positive=0.0, max_positive=1.0, min_abs=0.5, max_abs=1.0, prob=0.05
            )

    def forward(self, y: Tensor, need_pad: bool = True) -> Tensor:
        """Predict from the last tokens.

        Args:
          y: (N, U) tokens; negative ones are embedded as zeros.
          need_pad: pad on the left, so that every token has an output (for training); else U must
            be at least context_size, and only full contexts have one.

        Returns:
          (N, U, decoder_dim), or (N, U - context_size + 1, decoder_dim) without padding.
        """
        embedded = self.embedding(y.clamp(min=0)) * (y >= 0).unsqueeze(-1)  # (N, U, C)
        embedded = self.balancer(embedded)
        if self.context_size > 1:
            embedded = embedded.permute(0, 2, 1)
            if need_pad:
                embedded = F.pad(embedded, (self.context_size - 1, 0))
            embedded = F.relu(self.conv(embedded).permute(0, 2, 1))
            embedded = self.balancer2(embedded)
        return embedded
