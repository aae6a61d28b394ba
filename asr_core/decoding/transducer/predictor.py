"""What a predictor remembers of the tokens so far, for many hypotheses at a time."""

from typing import Any, Optional, Protocol, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.transducer.context_table import ContextTable, fits_table

States = Tuple[Tensor, ...]  # one entry for each hypothesis along the first axes of each tensor


class PredictorStates(Protocol):
    """A predictor as searches use it.

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
        """States (*shape, ...) of hypotheses that have not begun."""
        ...

    def output(self, states: States) -> Tensor:
        """Projected predictor outputs (..., joiner_dim)."""
        ...

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """The states after ``token`` (...) int64, where ``emits`` (...) is true; elsewhere as they were."""
        ...


def histories(model: Any) -> PredictorStates:
    """The predictor of ``model``, which has ``decoder`` and ``joiner.decoder_proj``; TorchScript will do."""
    if is_recurrent(model.decoder):
        return RecurrentHistories(model)
    return StatelessHistories(model) if fits_table(model.decoder) else TokenHistories(model)


def is_recurrent(decoder: Any) -> bool:
    """Whether a predictor sees all tokens so far, not only the last few."""
    return not hasattr(decoder, "context_size")


class StatelessHistories:
    """A stateless predictor: the state is the context's code, see :class:`~asr_core.decoding.transducer.context_table.ContextTable`."""

    def __init__(self, model: Any) -> None:
        self._table = ContextTable(model)
        self.blank_id, self.vocab_size, self.device = (
            self._table.blank_id,
            self._table.vocab_size,
            self._table.device,
        )
        self.initial_length = self._table.context_size
        self.horizon: Optional[int] = self._table.context_size

    def start(self, *shape: int) -> States:
        """See :class:`PredictorStates`."""
        return (self._table.start(*shape),)

    def output(self, states: States) -> Tensor:
        """See :class:`PredictorStates`."""
        return self._table(states[0])

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """See :class:`PredictorStates`."""
        return (torch.where(emits, self._table.append(states[0], token), states[0]),)


class _Evaluated:
    """A predictor that is asked each time."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.decoder
        self._proj = model.joiner.decoder_proj
        self.blank_id = int(model.decoder.blank_id)
        self.vocab_size = int(model.decoder.vocab_size)
        self.device = next(self._proj.parameters()).device


class TokenHistories(_Evaluated):
    """A stateless predictor with too many contexts to number them: the state is the last tokens themselves."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.initial_length = int(model.decoder.context_size)
        self.horizon: Optional[int] = self.initial_length

    def start(self, *shape: int) -> States:
        """See :class:`PredictorStates`; before an utterance comes "nothing" (-1), then a blank."""
        tokens = torch.full((*shape, self.initial_length), -1, dtype=torch.int64, device=self.device)
        tokens[..., -1] = self.blank_id
        return (tokens,)

    def output(self, states: States) -> Tensor:
        """See :class:`PredictorStates`."""
        shape = states[0].shape[:-1]
        return self._proj(self._decoder(states[0].reshape(-1, self.initial_length), False).squeeze(1)).view(
            *shape, -1
        )

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """See :class:`PredictorStates`."""
        longer = torch.cat([states[0][..., 1:], token.unsqueeze(-1)], dim=-1)
        return (torch.where(emits.unsqueeze(-1), longer, states[0]),)


class RecurrentHistories(_Evaluated):
    """An LSTM predictor: the states are its projected output, and the outputs and cells of its layers."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.initial_length = 1
        self.horizon: Optional[int] = None
        with torch.no_grad():
            self._initial = self._step(
                torch.tensor([self.blank_id], device=self.device), *self._decoder.get_init_states(1)
            )

    def start(self, *shape: int) -> States:
        """See :class:`PredictorStates`."""
        return tuple(s.expand(*shape, *s.shape[1:]) for s in self._initial)

    def _step(self, token: Tensor, h: Tensor, c: Tensor) -> States:
        out, h, c = self._decoder.step(token, h, c)
        return self._proj(out), h, c

    def output(self, states: States) -> Tensor:
        """See :class:`PredictorStates`."""
        return states[0]

    def append(self, states: States, token: Tensor, emits: Tensor) -> States:
        """See :class:`PredictorStates`; only hypotheses that grow are evaluated."""
        index = emits.flatten().nonzero().squeeze(1)
        if not len(index):
            return states
        flat = [s.flatten(0, token.dim() - 1) for s in states]
        new = self._step(token.flatten()[index], flat[1][index], flat[2][index])
        return tuple(s.index_copy(0, index, n).unflatten(0, token.shape) for s, n in zip(flat, new))


def select(states: States, index: Tensor) -> States:
    """The states at ``index`` of the first axis."""
    return tuple(s[index] for s in states)


def concatenate(parts: Sequence[States]) -> States:
    """States of several groups of hypotheses, one after another along the first axis."""
    return tuple(torch.cat(tensors) for tensors in zip(*parts))
