"""Outputs of a stateless predictor, each computed once per search."""

from typing import List, Optional, Sequence, cast

import torch
from torch import Tensor

from asr_core.decoding.protocol import StatelessDecoder, Transducer
from asr_core.decoding.transducer.contexts import ContextCache

_MAX_CONTEXTS = 1 << 21  # an int64 index of this many entries takes 16 MiB
_MAX_CODE = 1 << 62  # room for the next digit's carry below the sign bit
_FIRST_ROWS = 256  # outputs that the table has room for at first; it doubles when it is full


def fits_table(decoder: StatelessDecoder) -> bool:
    """Return whether every context of a stateless predictor fits into a 64-bit integer."""
    return (int(decoder.vocab_size) + 1) ** int(decoder.context_size) < _MAX_CODE


class ContextTable:
    """Projected predictor outputs by context, see
    :class:`~asr_core.decoding.transducer.contexts.Contexts`.

    A stateless predictor sees only the last ``context_size`` tokens, so a search meets few
    different contexts again and again. A context is one integer: its tokens, each plus one, are the
    digits in base ``vocab_size + 1``; the digit 0 stands for "no token yet" (-1) before an
    utterance. Where the contexts that can occur are too many to index, every look-up runs the
    predictor.

    The table belongs to one state of the weights: make a new one after they change.

    Args:
      model: with a stateless predictor; eager or TorchScript.

    Raises:
      ValueError: the contexts do not fit into 64 bits, see :func:`fits_table`.

    Attributes:
      blank_id, vocab_size, context_size, device: the model's.
      base: base of the digits.
      keep: base to the power of (context_size - 1); the remainder of a context by it is the context
        without its oldest token.
    """

    def __init__(self, model: Transducer) -> None:
        self._decoder = cast(StatelessDecoder, model.decoder)
        self._proj = model.joiner.decoder_proj
        self.blank_id = int(self._decoder.blank_id)
        self.vocab_size = int(self._decoder.vocab_size)
        self.base = self.vocab_size + 1
        self.context_size = int(self._decoder.context_size)
        self.keep = self.base ** (self.context_size - 1)
        if not fits_table(self._decoder):
            raise ValueError(
                f"a predictor of context size {self.context_size} over {self.vocab_size} tokens "
                "has too many contexts"
            )
        contexts = self.base**self.context_size
        weight = next(self._proj.parameters())
        self.device = weight.device
        self._rows = weight.new_empty(0, weight.size(0))  # (room, J)
        self._used = 0
        # the row of each context, -1 while it is unknown
        self._slots = torch.full((contexts if contexts <= _MAX_CONTEXTS else 0,), -1, device=self.device)

    def start(self, *shape: int) -> Tensor:
        """Return the contexts (*shape) before an utterance: no tokens, then a blank."""
        return torch.full(shape, self.blank_id + 1, dtype=torch.int64, device=self.device)

    def append(self, code: Tensor, token: Tensor) -> Tensor:
        """Return the contexts ``code`` after ``token``, both (N, B) or any other shape."""
        return torch.add(token, code.remainder(self.keep), alpha=self.base).add_(1)

    def __call__(self, code: Tensor) -> Tensor:
        """Return projected predictor outputs (M, J) of contexts (M,), or any other shape."""
        if not len(self._slots):
            return self.evaluate(code.reshape(-1)).view(*code.shape, -1)
        slot = self._slots[code]
        if slot.min() < 0:
            self._add(code[slot < 0].unique())
            slot = self._slots[code]
        return self._rows[slot]

    def remember(self, code: Tensor, valid: Tensor) -> List[Optional[ContextCache]]:
        """Return None for each of the N streams of ``code`` (N, S): codes need no cache."""
        return [None] * len(code)

    def recall(self, caches: Sequence[Optional[ContextCache]]) -> None:
        """Do nothing: the table holds for all utterances."""

    def _add(self, codes: Tensor) -> None:
        """Evaluate new contexts (M,)."""
        rows = self.evaluate(codes)
        end = self._used + len(codes)
        if end > len(self._rows):
            room = max(end, 2 * len(self._rows), _FIRST_ROWS)
            grown = self._rows.new_empty(room, self._rows.size(1))
            grown[: self._used] = self._rows[: self._used]
            self._rows = grown
        self._rows[self._used : end] = rows
        self._slots[codes] = torch.arange(self._used, end, device=self.device)
        self._used = end

    def evaluate(self, codes: Tensor) -> Tensor:
        """Run the predictor on contexts (M,); returns its projected outputs (M, J)."""
        digits = [
            codes.div(self.base**k, rounding_mode="floor").remainder(self.base) - 1
            for k in reversed(range(self.context_size))
        ]
        return self._proj(self._decoder(torch.stack(digits, dim=1), False).squeeze(1))
