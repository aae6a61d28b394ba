"""The interface of predictors to searches: states after the tokens so far, for many hypotheses at a
time.
"""

from typing import Optional, Protocol, cast

import torch
from torch import Tensor

from asr_core.decoding.protocol import RecurrentDecoder, StatelessDecoder, Transducer
from asr_core.decoding.states import States
from asr_core.decoding.transducer.context_table import ContextTable, fits_table


class PredictorStates(Protocol):
    """A predictor and the states of hypotheses in it.

    Attributes:
      blank_id, vocab_size, device: the model's.
      initial_length: tokens of the context before an utterance.
      horizon: number of last tokens that determine the states; None: all do.
    """

    blank_id: int
    vocab_size: int
    device: torch.device
    initial_length: int
    horizon: Optional[int]

    def start(self, *shape: int) -> States:
        """Return the initial states (*shape, ...) of hypotheses."""
        ...

    def output(self, states: States) -> Tensor:
        """Return projected outputs (N, B, J) of states (N, B, ...), or any other shape."""
        ...

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """Return the states after ``token`` (N, B) int64 where ``emits`` (N, B); elsewhere as they
        were.
        """
        ...


def predictor_states(model: Transducer) -> PredictorStates:
    """Return the predictor of ``model`` in the form that suits its kind."""
    if is_recurrent(model.decoder):
        return RecurrentStates(model)
    return CodedStates(model) if fits_table(cast(StatelessDecoder, model.decoder)) else TokenStates(model)


def is_recurrent(decoder: object) -> bool:
    """Return whether a predictor sees all tokens so far, not only the last few."""
    return not hasattr(decoder, "context_size")


class CodedStates(PredictorStates):
    """A stateless predictor: the state is the context's code.

    See :class:`~asr_core.decoding.transducer.context_table.ContextTable`.
    """

    def __init__(self, model: Transducer) -> None:
        self._table = ContextTable(model)
        self.blank_id = self._table.blank_id
        self.vocab_size = self._table.vocab_size
        self.device = self._table.device
        self.initial_length = self._table.context_size
        self.horizon = self._table.context_size

    def start(self, *shape: int) -> States:
        """Return the codes (*shape) of the context before an utterance."""
        return (self._table.start(*shape),)

    def output(self, states: States) -> Tensor:
        """Look up the outputs (N, B, J)."""
        return self._table(states[0])

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """Return the codes (N, B) after ``token`` (N, B)."""
        return (torch.where(emits, self._table.append(states[0], token), states[0]),)


class _EvaluatedStates(PredictorStates):
    """A predictor that is evaluated in each step, then projected."""

    def __init__(self, model: Transducer) -> None:
        self._proj = model.joiner.decoder_proj
        self.blank_id = int(model.decoder.blank_id)
        self.vocab_size = int(model.decoder.vocab_size)
        weight = next(self._proj.parameters())
        self.device, self._dtype = weight.device, weight.dtype


class TokenStates(_EvaluatedStates):
    """A stateless predictor with too many contexts to number them: the state is the last tokens
    themselves.
    """

    def __init__(self, model: Transducer) -> None:
        super().__init__(model)
        self._decoder = cast(StatelessDecoder, model.decoder)
        self.initial_length = int(self._decoder.context_size)
        self.horizon = self.initial_length

    def start(self, *shape: int) -> States:
        """Return the tokens (*shape, context_size) before an utterance: none (-1), then a blank."""
        tokens = torch.full((*shape, self.initial_length), -1, dtype=torch.int64, device=self.device)
        tokens[..., -1] = self.blank_id
        return (tokens,)

    def output(self, states: States) -> Tensor:
        """Evaluate the last tokens (N, B, context_size) of each hypothesis."""
        shape = states[0].shape[:-1]
        flat = states[0].reshape(-1, self.initial_length)
        return self._proj(self._decoder(flat, False).squeeze(1)).view(*shape, -1)

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """Return the last tokens (N, B, context_size) after ``token`` (N, B)."""
        longer = torch.cat([states[0][..., 1:], token.unsqueeze(-1)], dim=-1)
        return (torch.where(emits.unsqueeze(-1), longer, states[0]),)


class RecurrentStates(_EvaluatedStates):
    """An LSTM predictor: the states are its projected output, and the outputs and cells of its
    layers.
    """

    def __init__(self, model: Transducer) -> None:
        super().__init__(model)
        self._decoder = cast(RecurrentDecoder, model.decoder)
        self.initial_length = 1
        self.horizon = None
        with torch.no_grad():
            blank = torch.tensor([self.blank_id], device=self.device)
            h, c = self._decoder.get_init_states(1)
            self._initial = self._step(blank, h, c)

    def start(self, *shape: int) -> States:
        """Return the states (*shape, ...) after the blank that stands before an utterance."""
        return tuple(s.expand(*shape, *s.shape[1:]) for s in self._initial)

    def _step(self, token: Tensor, h: Tensor, c: Tensor) -> States:
        """Return the projected output (N, J), and h and c (N, L, H) after ``token`` (N,)."""
        out, h, c = self._decoder.step(token, h, c)
        return self._proj(out.to(self._dtype)), h, c

    def output(self, states: States) -> Tensor:
        """Return the outputs (N, B, J), which are part of the states."""
        return states[0]

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """Return the states (N, B, ...) after ``token`` (N, B); only hypotheses that grow are
        evaluated.
        """
        index = emits.flatten().nonzero().squeeze(1)  # (M,), the hypotheses that grow
        if not len(index):
            return states
        flat = [s.flatten(0, token.dim() - 1) for s in states]  # (N * B, ...)
        new = self._step(token.flatten()[index], flat[1][index], flat[2][index])
        return tuple(s.index_copy(0, index, n).unflatten(0, token.shape) for s, n in zip(flat, new))
