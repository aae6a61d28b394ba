"""Log-mel features of audio, the same in preparation, training, decoding and transcription."""

import math
from functools import lru_cache
from typing import Dict, Optional, Union

import torch
from lhotse.features.base import FeatureExtractor
from lhotse.features.kaldi.extractors import Fbank, FbankConfig
from torch import Tensor

from asr_core.data import log_mel
from asr_core.data.log_mel import LogMel, LogMelConfig
from asr_core.data.options import FEATURE_TYPES
from asr_core.utils.errors import UserError

LOG_EPS = math.log(1e-10)  # value of padding frames: the log of the smallest energy, as in lhotse
_PIECE = 120  # seconds whose spectra are in memory at a time


@lru_cache(maxsize=8)
def make_extractor(
    sample_rate: int = 16000, num_mel_bins: int = 80, feature_type: str = "fbank"
) -> FeatureExtractor:
    """Return a lhotse extractor; ``extract(samples in [-1, 1], sample_rate)`` gives (T, C).

    ``fbank`` is Kaldi-compatible: 25-ms povey windows every 10 ms, no dither, the last filter
    ending 400 Hz below the Nyquist frequency, one frame per shift (``snip_edges`` off).
    ``log-mel``: see :mod:`asr_core.data.log_mel`.

    Raises:
      UserError: there are no such features.
    """
    if feature_type == "log-mel":
        return LogMel(LogMelConfig(sample_rate, num_mel_bins))
    if feature_type != "fbank":
        raise UserError(f"unknown --feature-type {feature_type!r}; known: {', '.join(FEATURE_TYPES)}")
    return Fbank(
        FbankConfig(
            sampling_rate=sample_rate,
            num_mel_bins=num_mel_bins,
            dither=0.0,
            snip_edges=False,
            high_freq=-400.0,
        )
    )


def describe_features(
    sample_rate: int = 16000, num_mel_bins: int = 80, feature_type: str = "fbank"
) -> Dict[str, Union[str, int, float]]:
    """Return all that defines the features, as JSON values, to be stored with them and with models.

    ``amplitude`` is the scale of the samples in the formula (programs pass samples in [-1, 1]
    everywhere), frequencies are in Hz, ``window`` and ``shift`` in samples.
    """
    common: Dict[str, Union[str, int, float]] = {
        "type": feature_type,
        "sample_rate": sample_rate,
        "num_mel_bins": num_mel_bins,
        "shift": sample_rate // 100,
    }
    if feature_type == "log-mel":
        return {
            **common,
            "amplitude": "int16",
            "window": log_mel.window_samples(sample_rate),
            "window_type": "hann",
            "spectrum": "magnitude",
            "low": log_mel.LOW_HZ,
            "high": log_mel.HIGH_PART * sample_rate / 2,
            "floor": log_mel.FLOOR,
        }
    return {
        **common,
        "amplitude": "unit",
        "window": sample_rate // 40,
        "window_type": "povey",
        "spectrum": "power",
        "low": 20.0,
        "high": sample_rate / 2 - 400.0,
        "floor": 1e-10,
    }


def extract_features(
    samples: Tensor, sample_rate: int, num_mel_bins: int = 80, feature_type: str = "fbank"
) -> Tensor:
    """Compute the features of one recording.

    Args:
      samples: (num_samples,) in [-1, 1], or 16-bit integers.
      sample_rate: samples per second; no resampling happens here.
      num_mel_bins: number of filters C.
      feature_type: kind of features, see :func:`make_extractor`.

    Returns:
      (T, C) float32, 100 frames per second. Any number of samples has a result, too few for a frame
      T = 0; the spectra of a long recording are never in memory together.
    """
    if len(samples) > _PIECE * sample_rate:
        stream = FeatureStream(sample_rate, num_mel_bins, feature_type)
        parts = [stream.accept(piece) for piece in samples.split(_PIECE // 2 * sample_rate)]
        return torch.cat([*parts, stream.finish()])
    extractor, samples = make_extractor(sample_rate, num_mel_bins, feature_type), _in_unit(samples)
    with torch.no_grad():
        if feature_type == "fbank" and len(samples) < sample_rate // 40:
            return _extract_short(extractor, samples, sample_rate)
        return extractor.extract(samples, sample_rate)


def _extract_short(extractor: FeatureExtractor, samples: Tensor, sample_rate: int) -> Tensor:
    """Compute the Kaldi-compatible features of less than a window.

    Kaldi mirrors samples at both ends, as often as a window needs; lhotse can do it once. So they
    are mirrored here, to whole frames, and the frames of the recording itself are kept.
    """
    shift, total = sample_rate // 100, len(samples)
    count, margin = (total + shift // 2) // shift, 2  # frames; a window reaches less than the margin
    if not count:
        return torch.zeros(0, extractor.feature_dim(sample_rate))
    places = torch.arange(-margin * shift, (count + margin) * shift) % (2 * total)
    mirrored = torch.cat([samples, samples.flip(0)])[places]
    return extractor.extract(mirrored, sample_rate)[margin : margin + count]


def _in_unit(samples: Tensor) -> Tensor:
    """Return the samples scaled to [-1, 1]."""
    return samples / 32768.0 if samples.dtype == torch.int16 else samples.float()


class FeatureStream:
    """Features of audio that comes piece by piece.

    All pieces together give what :func:`extract_features` gives for the whole.

    Args:
      sample_rate, num_mel_bins, feature_type: as for :func:`extract_features`.
    """

    _MARGIN = 1  # frames at the start of a piece that differ, because kaldi mirrors samples at the edge

    def __init__(self, sample_rate: int = 16000, num_mel_bins: int = 80, feature_type: str = "fbank") -> None:
        self._form = (sample_rate, num_mel_bins, feature_type)
        self._shift = sample_rate // 100
        window = sample_rate // 40
        # Samples that a frame needs, from its first on; kaldi's windows are centred on their shift.
        self._reach = window + 1 if feature_type == "log-mel" else (window + self._shift + 1) // 2
        self._kept = torch.zeros(0)  # from frame ``_first`` on
        self._first = 0
        self._done = 0

    def accept(self, samples: Tensor) -> Tensor:
        """Add samples (num_samples,); return the frames (T, C) that they complete."""
        self._kept = torch.cat([self._kept, _in_unit(samples)])
        complete = self._first + max(0, (len(self._kept) - self._reach) // self._shift + 1)
        return self._frames(complete)

    def finish(self) -> Tensor:
        """Return the remaining frames (T, C), at the end of the audio."""
        return self._frames(None)

    def _frames(self, end: Optional[int]) -> Tensor:
        """Return the frames before ``end``, or all, that were not returned earlier."""
        sample_rate, num_mel_bins, feature_type = self._form
        if end is not None and end <= self._done:
            return torch.zeros(0, num_mel_bins)
        features = extract_features(self._kept, sample_rate, num_mel_bins, feature_type)
        out = features[self._done - self._first : None if end is None else end - self._first]
        self._done += len(out)
        keep = max(self._first, self._done - self._MARGIN)
        self._kept = self._kept[(keep - self._first) * self._shift :]
        self._first = keep
        return out
