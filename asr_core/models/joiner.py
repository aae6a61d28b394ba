"""The joiner of a transducer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.scaling import ScaledLinear

MODES = ("add", "multiply", "gated")
TRANSDUCER_TYPES = ("classic", "hat")


class Joiner(nn.Module):
    """Logits ``z = W h + b`` of the next token, h made of the projections e and d of the encoder's and the decoder's output.

    By ``mode`` ::

        add:       h = tanh(e + d)
        multiply:  h = tanh(e d)
        gated:     h = g tanh(e_1) + (1 - g) tanh(d_1),  g = sigmoid(e_2 + d_2)

    all products element by element; the projections of "gated" are twice as wide, [e_1, e_2] and [d_1, d_2], so that each element
    chooses between the encoder's and the predictor's features.

    A classic transducer takes the softmax of z. A hybrid autoregressive transducer ("hat"; Variani et al. 2020) gives blank a
    probability of its own and shares the rest among the tokens; its outputs are log-probabilities, which a softmax does not change ::

        log p(blank) = -softplus(-z_blank),  log p(k) = -softplus(z_blank) + log softmax over all k but blank (z)_k

    Args:
      encoder_dim, decoder_dim: widths of its inputs.
      joiner_dim: width of h.
      vocab_size: number of tokens, blank included.
      decoder_bias: whether the projection of the decoder's output has a bias besides that of the encoder's, to which it adds.
      mode: one of :data:`MODES`.
      transducer_type: one of :data:`TRANSDUCER_TYPES`.
      blank_logit_bias: constant that is added to z_blank.
      blank_id: the blank's token.
    """

    def __init__(
        self,
        encoder_dim: int,
        decoder_dim: int,
        joiner_dim: int,
        vocab_size: int,
        decoder_bias: bool = True,
        mode: str = "add",
        transducer_type: str = "classic",
        blank_logit_bias: float = 0.0,
        blank_id: int = 0,
    ) -> None:
        super().__init__()
        if mode not in MODES or transducer_type not in TRANSDUCER_TYPES:
            raise ValueError(
                f"mode must be one of {MODES} and transducer_type of {TRANSDUCER_TYPES}, not {mode!r} and {transducer_type!r}"
            )
        projected = 2 * joiner_dim if mode == "gated" else joiner_dim
        scale = 1.0 if mode == "multiply" else 0.25  # a product of small numbers would be next to nothing
        self.encoder_proj = ScaledLinear(encoder_dim, projected, initial_scale=scale)
        self.decoder_proj = ScaledLinear(decoder_dim, projected, bias=decoder_bias, initial_scale=scale)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)
        self.mode = mode
        self.hat = transducer_type == "hat"
        self.blank_logit_bias = float(blank_logit_bias)
        self.blank_id = blank_id

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        """Logits (..., vocab_size); log-probabilities of a hybrid autoregressive transducer.

        Args:
          encoder_out: (..., encoder_dim), or (..., width of the projection) when it is projected already.
          decoder_out: the same with decoder_dim.
          project_input: whether to apply the two projections.
        """
        if project_input:
            encoder_out = self.encoder_proj(encoder_out)
            decoder_out = self.decoder_proj(decoder_out)
        logits = self._logits(self.combine(encoder_out, decoder_out))
        if not self.hat:
            return logits
        of_blank = logits.select(-1, self.blank_id)
        log_probs = self._labels(logits).log_softmax(dim=-1) + F.logsigmoid(-of_blank).unsqueeze(-1)
        log_probs.select(-1, self.blank_id).copy_(
            F.logsigmoid(of_blank)
        )  # an index after "..." would fix the axes in a trace
        return log_probs

    def combine(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        """h (..., joiner_dim) of projected inputs."""
        if self.mode == "gated":
            enc, enc_gate = encoder_out.chunk(2, dim=-1)
            dec, dec_gate = decoder_out.chunk(2, dim=-1)
            return torch.lerp(torch.tanh(dec), torch.tanh(enc), torch.sigmoid(enc_gate + dec_gate))
        return torch.tanh(encoder_out * decoder_out if self.mode == "multiply" else encoder_out + decoder_out)

    @torch.jit.export
    def internal_lm(self, decoder_out: Tensor) -> Tensor:
        """Logits (..., vocab_size) of the internal language model: h without the encoder's part, d alone.

        The place of e is taken by 0 or, where it multiplies d, by 1. The internal language model of a hybrid autoregressive
        transducer knows no blank: the blank's logit is minus infinity.

        Args:
          decoder_out: (..., width of the projection), projected.
        """
        nothing = torch.ones_like(decoder_out) if self.mode == "multiply" else torch.zeros_like(decoder_out)
        logits = self._logits(self.combine(nothing, decoder_out))
        return self._labels(logits) if self.hat else logits

    def output_bias(self) -> Tensor:
        """b (vocab_size,) with ``blank_logit_bias``."""
        bias = self.output_linear.bias
        if self.blank_logit_bias != 0.0:
            bias = bias.clone()
            bias[self.blank_id] += self.blank_logit_bias
        return bias

    def _logits(self, h: Tensor) -> Tensor:
        logits = self.output_linear(h)
        if self.hat and (logits.dtype == torch.float16 or logits.dtype == torch.bfloat16):
            logits = logits.float()  # log-probabilities close to 0 need more digits
        if self.blank_logit_bias != 0.0:
            logits.select(-1, self.blank_id).add_(self.blank_logit_bias)
        return logits

    def _labels(self, logits: Tensor) -> Tensor:
        """``logits`` with minus infinity at the blank."""
        labels = logits.clone()
        labels.select(-1, self.blank_id).fill_(float("-inf"))
        return labels
