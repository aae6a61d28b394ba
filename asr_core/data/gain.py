"""Random levels of training utterances, so that quiet recordings are understood as well.

The training loss applies them, because they start when a model has left the plateau on which it
writes nothing: loaders do not know how far the training is. They come after SpecAugment: a mask of
an utterance's mean moves with the utterance.
"""

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor

from asr_core.data.log_mel import FLOOR as LOG_MEL_FLOOR
from asr_core.data.options import DataOptions
from asr_core.utils.errors import UserError

FBANK_FLOOR = math.log(torch.finfo(torch.float32).eps)  # smallest log energy of lhotse's fbank
_TOLERANCE = 0.02  # of a stored floor: features are kept in half precision or in lilcom's steps of 1/32
_NATS_PER_DB = math.log(10.0) / 20.0  # of a magnitude


@dataclass(frozen=True)
class Level:
    """How features change where the audio gets louder or quieter.

    Attributes:
      nats_per_db: added to each feature for 1 dB.
      floor: smallest value of features; what lies there stays there.
    """

    nats_per_db: float
    floor: float

    def change(self, x: Tensor, gain: Tensor) -> Tensor:
        """Return features (N, T, C) that are ``gain`` (N,) dB louder.

        An attenuation of features is what that of their audio gives. What an amplification would
        lift above the floor is not known: it stays there.
        """
        louder = (x + gain.view(-1, 1, 1) * self.nats_per_db).clamp_(min=self.floor)
        return torch.where(x > self.floor + _TOLERANCE, louder, x)


LEVELS = {  # of each feature type
    "fbank": Level(2.0 * _NATS_PER_DB, FBANK_FLOOR),  # energies
    "log-mel": Level(_NATS_PER_DB, math.log(LOG_MEL_FLOOR)),
}


@dataclass(frozen=True)
class RandomGain:
    """Augmentation that changes the level of some utterances.

    Attributes:
      level: how features change.
      p: probability for each utterance.
      low, high: range of the gains in dB, all equally probable.
    """

    level: Level
    p: float
    low: float
    high: float

    def __call__(self, x: Tensor, seed: int) -> Tensor:
        """Return changed features (N, T, C); all of an utterance changes alike.

        Args:
          x: the features; left as they are.
          seed: of the random draws, which touch no global state.
        """
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(len(x), generator=generator) < self.p
        gain = torch.empty(len(x)).uniform_(self.low, self.high, generator=generator)
        change = gain * chosen
        if x.is_cuda:  # a copy from pinned memory waits for nothing
            change = change.pin_memory()
        return self.level.change(x, change.to(x.device, non_blocking=True))


def random_gain(opts: DataOptions) -> Optional[RandomGain]:
    """Return the changes of level that ``opts`` asks for, if any.

    Raises:
      UserError: the range of gains is empty.
    """
    if opts.gain_low > opts.gain_high:
        raise UserError(f"--gain-low {opts.gain_low:g} is above --gain-high {opts.gain_high:g}")
    if opts.gain_prob == 0:
        return None
    return RandomGain(LEVELS[opts.feature_type], opts.gain_prob, opts.gain_low, opts.gain_high)
