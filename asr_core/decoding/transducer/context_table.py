"""Outputs of a stateless predictor, each computed once per search."""

import math
from typing import Any

import torch
from torch import Tensor

_MAX_CONTEXTS = 1 << 21  # an int64 index of this many entries takes 16 MiB
_MAX_CODE = 1 << 62


def fits_table(decoder: Any) -> bool:
    """Whether every context of a stateless predictor can be one integer of 64 bits."""
    return (int(decoder.vocab_size) + 1) ** int(decoder.context_size) < _MAX_CODE


class ContextTable:
    """Projected predictor outputs by context.

    A stateless predictor sees only the last ``context_size`` tokens, so a search meets few different contexts again and again.
    A context is one integer: its tokens, each plus one, are the digits in base ``vocab_size + 1``; the digit 0 stands for the
    "nothing yet" (-1) before an utterance. Where the contexts that can occur are too many to index, every look-up runs the predictor.

    The table belongs to one state of the weights: make a new one after they change.

    Args:
      model: has ``decoder`` (with ``blank_id``, ``context_size``, ``vocab_size``) and ``joiner.decoder_proj``; TorchScript will do.

    Raises:
      ValueError: the contexts do not fit into 64 bits, see :func:`fits_table`.

    Attributes:
      blank_id, vocab_size, context_size, device: the model's.
      base: base of the digits.
      keep: base to the power of (context_size - 1); the remainder of a context by it is the context without its oldest token.
    """

    def __init__(self, model: Any) -> None:
        self._decoder = model.decoder
        self._proj = model.joiner.decoder_proj
        self.blank_id = int(model.decoder.blank_id)
        self.vocab_size = int(model.decoder.vocab_size)
        self.base = self.vocab_size + 1
        self.context_size = int(model.decoder.context_size)
        self.keep = self.base ** (self.context_size - 1)
        if not fits_table(model.decoder):
            raise ValueError(
                f"a predictor of context size {self.context_size} over {self.vocab_size} tokens has too many contexts"
            )
        contexts = self.base**self.context_size
        weight = next(self._proj.parameters())
        self.device = weight.device
        self._rows = weight.new_empty(0, weight.size(0))
        self._used = 0
        self._slots = torch.full((contexts,), -1, device=self.device) if contexts <= _MAX_CONTEXTS else None

    def start(self, *shape: int) -> Tensor:
        """Contexts of utterances that have not begun: (context_size - 1) times nothing, then a blank."""
        return torch.full(shape, self.blank_id + 1, dtype=torch.int64, device=self.device)

    def append(self, code: Tensor, token: Tensor) -> Tensor:
        """The contexts ``code`` after emitting ``token`` (same shape, int64)."""
        return torch.add(token, code.remainder(self.keep), alpha=self.base).add_(1)

    def __call__(self, code: Tensor) -> Tensor:
        """Projected predictor outputs (..., joiner_dim) of contexts ``code`` (...)."""
        if self._slots is None:
            return self._evaluate(code.reshape(-1)).view(*code.shape, -1)
        slot = self._slots[code]
        if slot.min() < 0:
            self._add(code[slot < 0].unique())
            slot = self._slots[code]
        return self._rows[slot]

    def _add(self, codes: Tensor) -> None:
        rows = self._evaluate(codes)
        end = self._used + len(codes)
        if end > len(self._rows):
            grown = self._rows.new_empty(max(end, 2 * len(self._rows), 256), self._rows.size(1))
            grown[: self._used] = self._rows[: self._used]
            self._rows = grown
        self._rows[self._used : end] = rows
        self._slots[codes] = torch.arange(self._used, end, device=self.device)  # type: ignore[index]
        self._used = end

    def _evaluate(self, codes: Tensor) -> Tensor:
        digits = [
            codes.div(self.base**k, rounding_mode="floor").remainder(self.base) - 1
            for k in reversed(range(self.context_size))
        ]
        return self._proj(self._decoder(torch.stack(digits, dim=1), False).squeeze(1))


def adjusted_log_probs(logits: Tensor, blank_id: int, blank_penalty: float, temperature: float) -> Tensor:
    """Log-softmax of ``logits`` (..., V) after subtracting ``blank_penalty`` from the blank's and dividing by ``temperature``."""
    if blank_penalty != 0:
        logits[..., blank_id] -= blank_penalty
    if temperature != 1:
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature must be positive, got {temperature}")
        logits = logits / temperature
    return logits.log_softmax(dim=-1)


def internal_log_probs(
    joiner: Any, decoder_out: Tensor, blank_id: int, blank_penalty: float, temperature: float
) -> Tensor:
    """Log-probabilities (..., V) of the internal language model, of which a share may be subtracted from a transducer's.

    That of a hybrid autoregressive transducer says nothing about blank: there it is 0, so that blank's scores stay as they are.

    Args:
      joiner: eager or TorchScript; of other makers, too, whose internal language model is what zeros as encoder output give.
      decoder_out: (..., C) projected predictor outputs.
      blank_id, blank_penalty, temperature: as of :func:`adjusted_log_probs`.
    """
    if hasattr(joiner, "internal_lm"):
        logits = joiner.internal_lm(decoder_out)
    else:
        logits = joiner(torch.zeros_like(decoder_out), decoder_out, project_input=False)
    log_probs = adjusted_log_probs(logits, blank_id, blank_penalty, temperature)
    return log_probs.masked_fill_(log_probs == float("-inf"), 0.0)
