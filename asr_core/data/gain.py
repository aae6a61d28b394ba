"""Random levels of training utterances, so that quiet recordings are understood as well."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from asr_core.data.log_mel import FLOOR as LOG_MEL_FLOOR

FBANK_FLOOR = math.log(torch.finfo(torch.float32).eps)  # smallest log energy of lhotse's fbank
_TOLERANCE = 0.02  # of a stored floor: features are kept in half precision or in lilcom's steps of 1/32
_NATS_PER_DB = math.log(10.0) / 20.0  # of a magnitude


@dataclass(frozen=True)
class Level:
    """How inputs change where the audio gets louder or quieter.

    Attributes:
      nats_per_db: added to each feature for 1 dB; 0: the inputs are samples, which are multiplied.
      floor: smallest value of features; what lies there stays there.
    """

    nats_per_db: float
    floor: float = -math.inf

    def change(self, x: Tensor, gain: Tensor) -> Tensor:
        """Return inputs (N, T, C) or (N, num_samples) that are ``gain`` (N,) dB louder.

        An attenuation of features is what that of their audio gives. What an amplification would
        lift above the floor is not known: it stays there.
        """
        gain = gain.view(-1, *[1] * (x.dim() - 1))
        if self.nats_per_db == 0:
            return x * 10.0 ** (gain / 20.0)
        louder = (x + gain * self.nats_per_db).clamp_(min=self.floor)
        return torch.where(x > self.floor + _TOLERANCE, louder, x)


SAMPLES = Level(0.0)
OF_FEATURES = {
    "fbank": Level(2.0 * _NATS_PER_DB, FBANK_FLOOR),  # energies
    "log-mel": Level(_NATS_PER_DB, math.log(LOG_MEL_FLOOR)),
}


@dataclass(frozen=True)
class RandomGain:
    """Augmentation that changes the level of some utterances; draws come from torch's global state.

    Attributes:
      level: how inputs change.
      p: probability for each utterance.
      low, high: range of the gains in dB, all equally probable.
    """

    level: Level
    p: float
    low: float
    high: float

    def __call__(self, x: Tensor, supervision_segments: Tensor) -> Tensor:
        """Return changed inputs (N, T, C) or (N, num_samples); an utterance keeps one level.

        Args:
          x: the inputs; left as they are.
          supervision_segments: not used: all of a row changes.
        """
        chosen = torch.rand(len(x)) < self.p
        gain = torch.empty(len(x)).uniform_(self.low, self.high)
        return self.level.change(x, gain * chosen)
