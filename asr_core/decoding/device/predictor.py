"""Predictors whose states follow each other by masks, so that the host waits for nothing."""

from typing import Optional, cast

import torch
from torch import Tensor

from asr_core.decoding.device.replay import shared
from asr_core.decoding.protocol import StatelessDecoder, Transducer
from asr_core.decoding.states import States
from asr_core.decoding.transducer.context_table import ContextTable, fits_table
from asr_core.decoding.transducer.predictor import (
    PredictorStates,
    RecurrentStates,
    TokenStates,
    is_recurrent,
)

_MAX_ROWS = 1 << 18  # 500 tokens and two of context; 256 MiB in half precision at a width of 512
_AT_ONCE = 1 << 14  # contexts evaluated together


def device_states(model: Transducer) -> PredictorStates:
    """Return the predictor of ``model`` in the form that suits its kind."""
    if is_recurrent(model.decoder):
        return MaskedRecurrentStates(model)
    return numbered_states(model) if fits_table(cast(StatelessDecoder, model.decoder)) else TokenStates(model)


class NumberedStates(PredictorStates):
    """A stateless predictor: the state is the context's code.

    Where the contexts are few enough, all are evaluated beforehand.

    Attributes:
      contexts: codes of contexts.
      rows: (number of contexts, J), projected outputs by code; None where there are too many.
    """

    def __init__(self, model: Transducer) -> None:
        self.contexts = ContextTable(model)
        self.blank_id = self.contexts.blank_id
        self.vocab_size = self.contexts.vocab_size
        self.device = self.contexts.device
        self.initial_length = self.contexts.context_size
        self.horizon = self.contexts.context_size
        number = self.contexts.base**self.contexts.context_size
        self.rows: Optional[Tensor] = None
        if number <= _MAX_ROWS:
            codes = torch.arange(number, device=self.device)
            self.rows = torch.cat([self.contexts.evaluate(part) for part in codes.split(_AT_ONCE)])

    def start(self, *shape: int) -> States:
        """Return the codes (*shape) of the context before an utterance."""
        return (self.contexts.start(*shape),)

    def output(self, states: States) -> Tensor:
        """Return the outputs (N, B, J)."""
        flat = states[0].reshape(-1)
        found = self.contexts.evaluate(flat) if self.rows is None else self.rows.index_select(0, flat)
        return found.view(*states[0].shape, -1)

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """Return the codes (N, B) after ``token`` (N, B)."""
        return (torch.where(emits, self.contexts.append(states[0], token), states[0]),)


def numbered_states(model: Transducer) -> NumberedStates:
    """Return the contexts of ``model`` as numbers; all its searches share their outputs."""
    return shared(model, lambda: NumberedStates(model))


class MaskedRecurrentStates(RecurrentStates):
    """An LSTM predictor that is evaluated for all hypotheses, and only the growing ones change."""

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """Return the states (N, B, ...) after ``token`` (N, B)."""
        flat = [s.flatten(0, token.dim() - 1) for s in states]  # (N * B, ...)
        new = self._step(token.flatten(), flat[1], flat[2])
        grows = emits.flatten()
        return tuple(
            torch.where(grows.view(-1, *[1] * (s.dim() - 1)), n.to(s.dtype), s).unflatten(0, token.shape)
            for s, n in zip(flat, new)
        )
