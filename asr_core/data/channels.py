"""The channel of recordings that have several: the choice, and a note if it is a silent one."""

import numpy as np

from asr_core.data.options import FIRST, LOUDEST, MIX

SILENT = 1e-3  # root mean square of silence at most: -60 dB
_HEARD = 1e-4  # and of a channel with sound at least: -80 dB, quiet speech ...
_LOUDER = 30.0  # ... which is also so many times louder than the silent one: 30 dB


def pick_channel(channels: np.ndarray, choice: str = FIRST) -> np.ndarray:
    """Return the samples (num_samples,) that ``choice`` names in (num_channels, num_samples).

    Raises:
      ValueError: there is no such channel.
    """
    if choice == MIX:
        return np.ascontiguousarray(channels.mean(axis=0, dtype=np.float32))
    return np.ascontiguousarray(channels[channel_number(channels, choice)])


def channel_number(channels: np.ndarray, choice: str) -> int:
    """Return which of the channels (num_channels, num_samples) ``choice`` names, other than mix.

    Raises:
      ValueError: there is no such channel.
    """
    if choice == LOUDEST:
        return max(range(len(channels)), key=lambda i: level_of(channels[i]))
    number = 0 if choice == FIRST else int(choice)
    if number >= len(channels):
        raise ValueError(f"no channel {number}; it has {len(channels)}, counted from 0")
    return number


def silence_note(channels: np.ndarray, chosen: np.ndarray) -> str:
    """Return what to say if the chosen samples are silent and another channel is not, else ""."""
    if len(channels) < 2:
        return ""
    level = level_of(chosen)
    if level > SILENT:
        return ""
    others = [i for i, other in enumerate(channels) if level_of(other) > max(_HEARD, _LOUDER * level)]
    if not others:
        return ""
    return f"its channel in use is silent, channel {others[0]} is not: give --channel {others[0]} or loudest"


def level_of(samples: np.ndarray) -> float:
    """Return the root mean square of samples, 0 if there are none."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
