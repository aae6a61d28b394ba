"""The joiner of a transducer (Graves 2012, https://arxiv.org/abs/1211.3711, section 2.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.nn.scaling import ScaledLinear

MODES = ("add", "multiply", "gated")
TRANSDUCER_TYPES = ("classic", "hat")


class Joiner(nn.Module):
    """Joiner with the logits ``z = W h + b`` of the next token, (N, T, U, V).

    The projections e and d of the encoder's and the prediction network's output make h, by ``mode``
    ::

        add:       h = tanh(e + d)
        multiply:  h = tanh(e d)
        gated:     h = g tanh(e_1) + (1 - g) tanh(d_1),  g = sigmoid(e_2 + d_2)

    All products are element by element. The projections of "gated" are twice as wide, [e_1, e_2]
    and [d_1, d_2], so that each element chooses between features of the encoder and of the
    prediction network.

    A classic transducer takes the softmax of z. A hybrid autoregressive transducer ("hat"; Variani
    et al. 2020, https://arxiv.org/abs/2003.07705, section 3) gives the blank its own
    probability and shares the rest among the tokens; its outputs are log-probabilities, which a
    softmax does not change ::

        log p(blank) = -softplus(-z_blank)
        log p(k) = -softplus(z_blank) + (log softmax of z without the blank)_k

    Args:
      encoder_dim, decoder_dim: widths of the inputs.
      joiner_dim: width of h.
      vocab_size: number V of tokens, blank included.
      decoder_bias: give the decoder's projection a bias, too, which adds to that of the encoder's.
      mode: one of :data:`MODES`.
      transducer_type: one of :data:`TRANSDUCER_TYPES`.
      blank_logit_bias: constant that is added to z_blank.
      blank_id: id of the blank.
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
                f"mode must be one of {MODES} and transducer_type of {TRANSDUCER_TYPES}, not "
                f"{mode!r}, {transducer_type!r}"
            )
        projected = 2 * joiner_dim if mode == "gated" else joiner_dim
        # Small projections start tanh in its linear range. A product of two small numbers would
        # almost vanish.
        scale = 1.0 if mode == "multiply" else 0.25
        self.encoder_proj = ScaledLinear(encoder_dim, projected, initial_scale=scale)
        self.decoder_proj = ScaledLinear(decoder_dim, projected, bias=decoder_bias, initial_scale=scale)
        self.output_linear = nn.Linear(joiner_dim, vocab_size)
        self.mode = mode
        self.hat = transducer_type == "hat"
        self.blank_logit_bias = float(blank_logit_bias)
        self.blank_id = blank_id

    def forward(self, encoder_out: Tensor, decoder_out: Tensor, project_input: bool = True) -> Tensor:
        """Compute logits, or log-probabilities of a hybrid autoregressive transducer.

        Args:
          encoder_out: (N, T, U, encoder_dim) or any other leading axes; (..., width of the
            projection) if projected.
          decoder_out: likewise, with decoder_dim.
          project_input: whether to apply the two projections.

        Returns:
          (N, T, U, V)
        """
        if project_input:
            encoder_out = self.encoder_proj(encoder_out)
            decoder_out = self.decoder_proj(decoder_out)
        logits = self._logits(self.combine(encoder_out, decoder_out))
        if not self.hat:
            return logits
        of_blank = logits.select(-1, self.blank_id)
        log_probs = self._labels(logits).log_softmax(dim=-1) + F.logsigmoid(-of_blank).unsqueeze(-1)
        # select, since an index after "..." would fix the number of axes in a trace
        log_probs.select(-1, self.blank_id).copy_(F.logsigmoid(of_blank))
        return log_probs

    def combine(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        """Return h (N, T, U, joiner_dim) of projected inputs, with any leading axes."""
        if self.mode == "gated":
            enc, enc_gate = encoder_out.chunk(2, dim=-1)
            dec, dec_gate = decoder_out.chunk(2, dim=-1)
            return torch.lerp(torch.tanh(dec), torch.tanh(enc), torch.sigmoid(enc_gate + dec_gate))
        return torch.tanh(encoder_out * decoder_out if self.mode == "multiply" else encoder_out + decoder_out)

    @torch.jit.export
    def internal_lm(self, decoder_out: Tensor) -> Tensor:
        """Compute logits of the internal language model, which leaves the encoder out of h.

        e is replaced by 0 or, where it multiplies d, by 1 (Variani et al. 2020, section 3.2).
        The internal language model of a hybrid autoregressive transducer has no blank: the blank's
        logit is minus infinity.

        Args:
          decoder_out: (N, U, width of the projection) or any other leading axes, projected.

        Returns:
          (N, U, V)
        """
        nothing = torch.ones_like(decoder_out) if self.mode == "multiply" else torch.zeros_like(decoder_out)
        logits = self._logits(self.combine(nothing, decoder_out))
        return self._labels(logits) if self.hat else logits

    def output_bias(self) -> Tensor:
        """Return the bias b (V,), with ``blank_logit_bias`` added."""
        bias: Tensor = self.output_linear.bias
        if self.blank_logit_bias != 0.0:
            bias = bias.clone()
            bias[self.blank_id] += self.blank_logit_bias
        return bias

    def _logits(self, h: Tensor) -> Tensor:
        """Return the logits z (N, T, U, V) of h (N, T, U, joiner_dim)."""
        logits = self.output_linear(h)
        if self.hat and (logits.dtype == torch.float16 or logits.dtype == torch.bfloat16):
            logits = logits.float()  # log-probabilities close to 0 need more digits
        if self.blank_logit_bias != 0.0:
            logits.select(-1, self.blank_id).add_(self.blank_logit_bias)
        return logits

    def _labels(self, logits: Tensor) -> Tensor:
        """Return ``logits`` (N, T, U, V) with minus infinity at the blank."""
        labels = logits.clone()
        labels.select(-1, self.blank_id).fill_(float("-inf"))
        return labels
