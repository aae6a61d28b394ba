"""Log-mel features of magnitudes, as axlearn and Lingvo compute them, for lhotse."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Dict, Tuple, Union

import numpy as np
import torch
from lhotse.features.base import FeatureExtractor, register_extractor
from torch import Tensor

# Lingvo's values for 16 kHz: filters from 125 Hz to 7600 Hz, pre-emphasis 0.97.
FLOOR = 1e-8  # of the filtered magnitudes, before the logarithm
LOW_HZ = 125.0
HIGH_PART = 0.95  # of the Nyquist frequency
PRE_EMPHASIS = 0.97
INT16_SCALE = 32768.0


@dataclass
class LogMelConfig:
    """Configuration of :class:`LogMel`: samples per second and number of filters."""

    sampling_rate: int = 16000
    num_filters: int = 80

    def to_dict(self) -> Dict[str, int]:
        """Return the fields by name."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Dict[str, int]) -> "LogMelConfig":
        """Return the configuration with these fields."""
        return LogMelConfig(**data)


def window_samples(sample_rate: int) -> int:
    """Return the samples under a window of 25 ms; a frame takes one more, for pre-emphasis."""
    return sample_rate // 40


def num_frames(num_samples: int, sample_rate: int) -> int:
    """Return the number of frames of ``num_samples`` samples, at least one if there are any.

    There is one every 10 ms, as long as it has any sample that earlier frames lack.
    """
    if num_samples < 1:
        return 0
    shift = sample_rate // 100
    return max(1, -(-(num_samples - window_samples(sample_rate) - 1 + shift) // shift))


@lru_cache(maxsize=8)
def _filters(sample_rate: int, num_filters: int, fft_size: int) -> Tensor:
    """Return triangles (fft_size / 2 + 1, num_filters), linear in mel = 1127 ln(1 + f / 700).

    Bin 0 has weight 0 everywhere.
    """

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


def constants(sample_rate: int, num_filters: int) -> Tuple[Tensor, Tensor]:
    """Return the window (W,) and the mel filters (fft_size / 2 + 1, num_filters)."""
    window = window_samples(sample_rate)
    return _hann(window), _filters(sample_rate, num_filters, 1 << (window - 1).bit_length())


def of_frames(frames: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    """Return the features (..., T, C) of frames (..., T, W + 1) of samples at the scale of 16-bit
    integers, with the :func:`constants`.
    """
    emphasised = (frames[..., 1:] - PRE_EMPHASIS * frames[..., :-1]) * window
    magnitudes = torch.fft.rfft(emphasised, 2 * (len(filters) - 1)).abs()
    return (magnitudes @ filters).clamp(min=FLOOR).log()


def log_mel(samples: Tensor, sample_rate: int, num_filters: int) -> Tensor:
    """Compute logarithms of mel-filtered magnitudes.

    Frame i has the samples from ``i * shift`` on, one more than the window. Pre-emphasis is done
    inside it; then come a periodic Hann window, the magnitude of the FFT, triangles from 125 Hz to
    0.95 times the Nyquist frequency, the floor 1e-8 and the natural logarithm. The last frame is
    padded with zeros.

    Args:
      samples: (num_samples,) float in [-1, 1]; the formula sees them at the scale of 16-bit
        integers.
      sample_rate: samples per second.
      num_filters: C.

    Returns:
      (T, C) float32, T as :func:`num_frames` says.
    """
    window, shift = window_samples(sample_rate), sample_rate // 100
    count = num_frames(len(samples), sample_rate)
    if count == 0:
        return torch.zeros(0, num_filters)
    wanted = (count - 1) * shift + window + 1
    padding = (0, max(0, wanted - len(samples)))
    samples = torch.nn.functional.pad(samples.float() * INT16_SCALE, padding)[:wanted]
    return of_frames(samples.unfold(0, window + 1, shift), *constants(sample_rate, num_filters))


@register_extractor
class LogMel(FeatureExtractor):
    """The extractor of :func:`log_mel` for lhotse, which can then also mix stored features."""

    name = "log-mel"
    config_type = LogMelConfig

    @property
    def frame_shift(self) -> float:
        """Seconds between frames."""
        return 0.01

    def feature_dim(self, sampling_rate: int) -> int:
        """Return the number of filters."""
        return self.config.num_filters

    def extract(self, samples: Union[np.ndarray, Tensor], sampling_rate: int) -> Union[np.ndarray, Tensor]:
        """Compute features (T, C) of ``samples``, (num_samples,) or (1, num_samples), in [-1, 1].

        The features are of the same kind of array as the samples.
        """
        x = torch.as_tensor(samples).reshape(-1)
        y = log_mel(x, sampling_rate, self.config.num_filters)
        return y if isinstance(samples, Tensor) else y.numpy()

    @staticmethod
    def mix(features_a: np.ndarray, features_b: np.ndarray, energy_scaling_factor_b: float) -> np.ndarray:
        """Add the energies of two matrices (T, C), those of b scaled by the factor."""
        energies = np.exp(2.0 * features_a) + energy_scaling_factor_b * np.exp(2.0 * features_b)
        return 0.5 * np.log(np.maximum(FLOOR**2, energies))

    @staticmethod
    def compute_energy(features: np.ndarray) -> float:
        """Return the sum of the squared magnitudes of a matrix (T, C)."""
        return float(np.sum(np.exp(2.0 * features)))
