"""Features of a whole batch of audio at once, on the device that the audio is on.

They are those of :func:`asr_core.data.features.extract_features`: an utterance's do not depend on
the others of its batch.
"""

from functools import lru_cache
from typing import Any, List, Mapping, NamedTuple, Optional, Tuple

import torch
from lhotse.features.kaldi.extractors import Fbank
from torch import Tensor, nn

from asr_core.data import log_mel
from asr_core.data.features import LOG_EPS, make_extractor
from asr_core.data.masks import Masks
from asr_core.data.mixing import MixPlan, mix

_PRE_EMPHASIS = 0.97  # Kaldi's
_PIECE = 1 << 16  # frames whose spectra are in memory at a time


class FeatureForm(NamedTuple):
    """The features, see :func:`asr_core.data.features.make_extractor`."""

    sample_rate: int = 16000
    num_mel_bins: int = 80
    feature_type: str = "fbank"

    def count_frames(self, num_samples: int) -> int:
        """Return the number of frames of ``num_samples`` samples."""
        if self.feature_type == "log-mel":
            return log_mel.num_frames(num_samples, self.sample_rate)
        shift = self.sample_rate // 100
        return (num_samples + shift // 2) // shift


class AudioPlan(NamedTuple):
    """How the features of a batch of audio are computed.

    Attributes:
      form: the features.
      mix: how waveforms become the audio of utterances.
      num_frames: (N,) int64, frames of each utterance.
      width: T, with silence at ends.
      masks: SpecAugment, if any.
    """

    form: FeatureForm
    mix: MixPlan
    num_frames: Tensor
    width: int
    masks: Optional[Masks] = None


@lru_cache(maxsize=8)
def _constants(form: FeatureForm, device: torch.device) -> Tuple[Tensor, Tensor]:
    """Return the window (W,) and the mel filters (fft_size / 2 + 1, C)."""
    if form.feature_type == "log-mel":
        window, filters = log_mel.constants(form.sample_rate, form.num_mel_bins)
        return window.to(device), filters.to(device)
    extractor = make_extractor(*form)
    assert isinstance(extractor, Fbank)
    tensors = dict(extractor.extractor.named_parameters())
    return tensors["wav2win._window"].to(device), tensors["_fb"].to(device)


def batch_features(audio: Tensor, num_samples: Tensor, num_frames: Tensor, form: FeatureForm) -> Tensor:
    """Compute the features of N utterances.

    Args:
      audio: (N, S) float32 in [-1, 1], or int16; zeros after the end of an utterance.
      num_samples: (N,) int64, on the device of the audio.
      num_frames: (N,) int64, on the device of the audio; see :meth:`FeatureForm.count_frames`.
      form: the features.

    Returns:
      (N, T, C) float32, for T frames of the longest row; ``LOG_EPS`` after the end of an utterance.
    """
    x = audio / 32768.0 if audio.dtype == torch.int16 else audio.float()
    width = form.count_frames(x.shape[1])
    if not x.numel() or not width:
        return x.new_full((len(x), width, form.num_mel_bins), LOG_EPS)
    with torch.autocast(x.device.type, enabled=False):
        if form.feature_type == "log-mel":
            frames, of_frames = _log_mel_frames(x, width, form), log_mel.of_frames
        else:
            frames, of_frames = _fbank_frames(x, num_samples, width, form), _fbank
        constants = _constants(form, x.device)
        step = max(1, _PIECE // len(x))
        out = torch.cat([of_frames(piece, *constants) for piece in frames.split(step, dim=1)], dim=1)
    inside = torch.arange(width, device=x.device) < num_frames.unsqueeze(1)
    return out.masked_fill_(~inside.unsqueeze(2), LOG_EPS)


def _fbank_frames(x: Tensor, num_samples: Tensor, width: int, form: FeatureForm) -> Tensor:
    """Return frames (N, T, W) centred on their shifts; each utterance is mirrored at its ends, as
    often as the last window needs.
    """
    window, shift = form.sample_rate // 40, form.sample_rate // 100
    at = torch.arange((width - 1) * shift + window, device=x.device) - (window - shift) // 2
    size = num_samples.clamp(min=1).unsqueeze(1)
    at = at % (2 * size)  # (N, samples of T frames)
    return x.gather(1, torch.where(at < size, at, 2 * size - 1 - at)).unfold(1, window, shift)


def _fbank(frames: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    """Return Kaldi's log-mel energies (N, T, C) of frames (N, T, W)."""
    frames = frames - frames.mean(dim=2, keepdim=True)
    before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
    spectra = torch.fft.rfft((frames - _PRE_EMPHASIS * before) * window, 2 * (len(filters) - 1))
    energies = spectra.real.square() + spectra.imag.square()
    return (energies @ filters).clamp(min=torch.finfo(torch.float32).eps).log()


def _log_mel_frames(x: Tensor, width: int, form: FeatureForm) -> Tensor:
    """Return frames (N, T, W + 1) that begin at their shifts."""
    window, shift = log_mel.window_samples(form.sample_rate), form.sample_rate // 100
    wanted = (width - 1) * shift + window + 1
    x = nn.functional.pad(x * log_mel.INT16_SCALE, (0, max(0, wanted - x.shape[1])))
    return x.unfold(1, window + 1, shift)[:, :width]


def features_on(samples: Tensor, form: FeatureForm, device: torch.device) -> Tensor:
    """Compute the features (T, C) of one recording (num_samples,) on a device."""
    size, frames = len(samples), form.count_frames(len(samples))
    sizes, counts = (torch.tensor([number], device=device) for number in (size, frames))
    return batch_features(samples.to(device).unsqueeze(0), sizes, counts, form)[0]


def shape_of_features(batch: Mapping[str, Any]) -> List[int]:
    """Return the shape of the features of a batch, (N, T, C), be they computed or planned."""
    plan: Optional[AudioPlan] = batch.get("plan")
    if plan is None:
        return list(batch["inputs"].shape)
    return [len(plan.num_frames), plan.width, plan.form.num_mel_bins]


def inputs_on(batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """Return the features (N, T, C) of a batch of the data module, on a device.

    They are computed there, warped and masked, if the batch has audio and a plan for it.
    """
    x: Tensor = batch["inputs"].to(device, non_blocking=True)
    plan: Optional[AudioPlan] = batch.get("plan")
    return x if plan is None else _carry_out(plan, x)


def with_inputs_on(batch: Mapping[str, Any], device: torch.device) -> Mapping[str, Any]:
    """Return the batch with its features on a device, see :func:`inputs_on`; nothing is left to be
    planned.
    """
    rest = {name: value for name, value in batch.items() if name != "plan"}
    return {**rest, "inputs": inputs_on(batch, device)}


@torch.no_grad()
def _carry_out(plan: AudioPlan, words: Tensor) -> Tensor:
    """Return the features (N, T, C) that are planned for samples of 16 bits."""
    device = words.device
    with torch.autocast(device.type, enabled=False):
        to_mix = plan.mix.to(device)
        audio, num_frames = mix(words, to_mix), plan.num_frames.to(device, non_blocking=True)
        x = batch_features(audio, to_mix.sizes, num_frames, plan.form)[:, : plan.width]
        x = nn.functional.pad(x, (0, 0, 0, plan.width - x.shape[1]), value=LOG_EPS)
        return x if plan.masks is None else plan.masks.to(device).apply(x)
