"""Log-mel features of magnitudes, as axlearn and Lingvo compute them, as a feature extractor of lhotse."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Dict, Union

import numpy as np
import torch
from lhotse.features.base import FeatureExtractor, register_extractor
from torch import Tensor

FLOOR = 1e-8
LOW_HZ = 125.0
HIGH_PART = 0.95  # of the Nyquist frequency
PRE_EMPHASIS = 0.97
INT16_SCALE = 32768.0


@dataclass
class LogMelConfig:
    """Samples per second and number of filters."""

    sampling_rate: int = 16000
    num_filters: int = 80

    def to_dict(self) -> Dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Dict[str, Any]) -> "LogMelConfig":
        """The inverse of :meth:`to_dict`."""
        return LogMelConfig(**data)


def window_samples(sample_rate: int) -> int:
    """Samples under the window, of 25 ms; a frame takes one more, which pre-emphasis uses up."""
    return sample_rate // 40


def num_frames(num_samples: int, sample_rate: int) -> int:
    """Frames of so many samples: one every 10 ms as long as it has any sample that earlier ones lack, at least one."""
    shift = sample_rate // 100
    return max(1, -(-(num_samples - window_samples(sample_rate) - 1 + shift) // shift))


@lru_cache(maxsize=8)
def _filters(sample_rate: int, num_filters: int, fft_size: int) -> Tensor:
    """Triangles (fft_size / 2 + 1, num_filters), linear in mel = 1127 ln(1 + f / 700); bin 0 has no part in any."""

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 1127.0 * np.log1p(hertz / 700.0)

    edges = np.linspace(mel(np.array(LOW_HZ)), mel(np.array(HIGH_PART * sample_rate / 2)), num_filters + 2)
    at = mel(np.arange(fft_size // 2 + 1) * sample_rate / fft_size)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0.0, np.minimum((at - low) / (centre - low), (high - at) / (high - centre)))
    weights[0] = 0.0
    return torch.from_numpy(weights.astype(np.float32))


@lru_cache(maxsize=8)
def _hann(length: int) -> Tensor:
    return torch.hann_window(length, periodic=True, dtype=torch.float64).float()


def log_mel(samples: Tensor, sample_rate: int, num_filters: int) -> Tensor:
    """Logarithms of mel-filtered magnitudes.

    Frame i has the samples from ``i * shift`` on, one more than the window; pre-emphasis is done inside it, then come a periodic Hann
    window, the magnitude of the FFT, triangles from 125 Hz to 0.95 times the Nyquist frequency, the floor 1e-8 and the natural
    logarithm. The last frame is filled up with zeros.

    Args:
      samples: (num_samples,) float in [-1, 1]; the formula sees 16-bit integers, that is 32768 times as much.
      sample_rate: samples per second.
      num_filters: C.

    Returns:
      (T, C) float32, T as :func:`num_frames` says.
    """
    window, shift = window_samples(sample_rate), sample_rate // 100
    count = num_frames(len(samples), sample_rate)
    wanted = (count - 1) * shift + window + 1
    samples = torch.nn.functional.pad(samples.float() * INT16_SCALE, (0, max(0, wanted - len(samples))))[
        :wanted
    ]
    frames = samples.unfold(0, window + 1, shift)
    emphasised = (frames[:, 1:] - PRE_EMPHASIS * frames[:, :-1]) * _hann(window)
    fft_size = 1 << (window - 1).bit_length()
    magnitudes = torch.fft.rfft(emphasised, fft_size).abs()
    return (magnitudes @ _filters(sample_rate, num_filters, fft_size)).clamp(min=FLOOR).log()


@register_extractor
class LogMel(FeatureExtractor):
    """:func:`log_mel` as lhotse wants it, so that stored features can be mixed, too."""

    name = "log-mel"
    config_type = LogMelConfig

    @property
    def frame_shift(self) -> float:
        return 0.01

    def feature_dim(self, sampling_rate: int) -> int:
        return self.config.num_filters

    def extract(self, samples: Union[np.ndarray, Tensor], sampling_rate: int) -> Union[np.ndarray, Tensor]:
        """(num_samples,) or (1, num_samples), in [-1, 1] -> (T, C), of the same kind of array."""
        x = torch.as_tensor(samples).reshape(-1)
        y = log_mel(x, sampling_rate, self.config.num_filters)
        return y if isinstance(samples, Tensor) else y.numpy()

    @staticmethod
    def mix(features_a: np.ndarray, features_b: np.ndarray, energy_scaling_factor_b: float) -> np.ndarray:
        """Adds the squares of magnitudes, those of b times the factor."""
        return 0.5 * np.log(
            np.maximum(
                FLOOR**2, np.exp(2.0 * features_a) + energy_scaling_factor_b * np.exp(2.0 * features_b)
            )
        )

    @staticmethod
    def compute_energy(features: np.ndarray) -> float:
        """Sum of squares of magnitudes."""
        return float(np.sum(np.exp(2.0 * features)))
