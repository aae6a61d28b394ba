"""The joiner of a transducer."""

import torch
from torch import Tensor, nn

from asr_core.nn.scaling import ScaledLinear


class Joiner(nn.Module):
    """``Linear(tanh(encoder_proj(e) + decoder_proj(d)))``.

    Args:
      encoder_dim, decoder_dim: widths of its inputs.
      joiner_dim: width inside.
      vocab_size: number of tokens.
      decoder_bias: whether the projection of the decoder's output has a bias besides that of the encoder's, to which it adds.
    """

    def __init__(self, encoder_dim: int, decoder_dim: int, joiner_dim: int, vocab_size: int, decoder_bias: bool = True) -> None:
        super().__init__()
        self.encoder_proj = ScaledLinear(encoder_dim, joiner_dim, initial_scale=0.25)
        self.decoder_proj = ScaledLinear(decoder_dim, joiner_dim, bias=decoder_bias, initial_scale=0.25)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        """Logits (..., vocab_size).

        Args:
          encoder_out: (..., encoder_dim), or (..., joiner_dim) when it is projected already.
          decoder_out: the same with decoder_dim.
          project_input: whether to apply the two projections.
        """
        if project_input:
            encoder_out = self.encoder_proj(encoder_out)
            decoder_out = self.decoder_proj(decoder_out)
        return self.output_linear(torch.tanh(encoder_out + decoder_out))
