"""From the cuts of one batch to its tensors; every batch's randomness comes from its own seed."""

import contextlib
import hashlib
import logging
import random
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.data.features import LOG_EPS, make_extractor
from asr_core.data.options import DataOptions
from asr_core.data.stream import load_cut
from asr_core.utils.errors import UserError

_MAX_TAIL_FRAMES = 40  # of digital silence; decoding a causal model appends 30 and what fills its last chunk

MISSING_PACKAGE = "stored in a form that needs another package"
OTHER_FEATURES = "not those of the model"

Loader = Callable[[Any], np.ndarray]


def batch_seed(*parts: int) -> int:
    """A 32-bit seed that depends on all ``parts``, e.g. (seed, epoch, rank, batch index)."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """Within the block all random sources follow ``seed``; afterwards they are as they were before."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield random.Random(seed)
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """Within the block torch uses one thread: the tensors of single utterances are too small to share."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class OtherFeatures(UserError):
    """Stored features are of another kind than the model's."""


class StoredFeatures:
    """Precomputed features (T, C) of a cut, noise mixed in if it carries any.

    Raises:
      OtherFeatures: they are not those that the options name.
    """

    def __init__(self, opts: DataOptions) -> None:
        self.opts = opts
        if opts.feature_type == "log-mel":
            import asr_core.data.log_mel  # noqa: F401  (makes the features known to lhotse, which mixes them)

    def __call__(self, cut: Any) -> np.ndarray:
        for track in getattr(cut, "tracks", None) or [cut]:
            features = getattr(getattr(track, "cut", track), "features", None)
            if features is not None:
                self._check(features)
        array = cut.load_features()
        if (
            array is not None and self.opts.feature_type == "log-mel"
        ):  # lhotse repeats the last frame where it counts one more
            from asr_core.data.log_mel import num_frames

            array = array[: num_frames(round(cut.duration * self.opts.sample_rate), self.opts.sample_rate)]
        return array

    def _check(self, features: Any) -> None:
        """Other programs' Kaldi-like features go by many names."""
        opts, found = self.opts, features.type if features.type == "log-mel" else "fbank"
        for name, value, wanted in (
            ("--feature-type", found, opts.feature_type),
            ("--num-mel-bins", features.num_features, opts.num_mel_bins),
            ("--sample-rate", features.sampling_rate, opts.sample_rate),
        ):
            if value != wanted:
                raise OtherFeatures(
                    f"prepared with {name} {value}, not {wanted}: give the same to both programs, or --on-the-fly-feats 1"
                )


class FeaturesOfAudio:
    """Features (T, C) computed from the audio of a cut."""

    def __init__(self, opts: DataOptions) -> None:
        self.sample_rate = opts.sample_rate
        self.extractor = make_extractor(opts.sample_rate, opts.num_mel_bins, opts.feature_type)

    def __call__(self, cut: Any) -> np.ndarray:
        samples = load_samples(
            cut.resample(self.sample_rate) if cut.sampling_rate != self.sample_rate else cut
        )
        return self.extractor.extract(samples[None], self.sample_rate)


def load_samples(cut: Any) -> np.ndarray:
    """Samples (num_samples,) float32 of a single-channel cut."""
    audio = cut.load_audio()
    if audio is None or audio.size == 0:
        raise ValueError("no audio")
    return np.ascontiguousarray(audio[0], dtype=np.float32)


LOADERS: Dict[str, Callable[[DataOptions], Loader]] = {
    "PrecomputedFeatures": StoredFeatures,
    "OnTheFlyFeatures": FeaturesOfAudio,
    "AudioSamples": lambda opts: load_samples,
}


class SpeechDataset(torch.utils.data.Dataset):
    """Makes batches in the form of lhotse's K2SpeechRecognitionDataset.

    N is the number of utterances, T the frames of the longest, C the mel filters. A batch is a dict:

    - ``inputs``: (N, T, C) float32, padded with ``LOG_EPS``; with the strategy ``AudioSamples`` (N, num_samples), padded with 0.
    - ``supervisions``: ``text`` (N strings), ``sequence_idx``, ``start_frame``, ``num_frames`` (N,) int32 (for audio
      ``start_sample``, ``num_samples``) and, if wanted, ``cut`` (N cuts). One supervision per cut: joined cuts have one text.
    - ``batch_idx``: this batch's position in its epoch, from 0.
    - ``dropped``: list of (cut id, reason) of cuts that could not be read. If none could, ``inputs`` has N = 0.

    Args:
      opts: data options.
      seeds: what the random sources of all batches depend on, e.g. (seed, epoch, rank).
      cut_transforms: functions (cuts, rng) -> cuts.
      input_transforms: functions (inputs, supervision_segments=(N, 3)) -> inputs, as in lhotse.
      return_cuts: whether batches carry their cuts.
      tail_silence_prob: how often an utterance gets digital silence at its end.
    """

    def __init__(
        self,
        opts: DataOptions,
        seeds: Sequence[int],
        cut_transforms: Sequence[Callable] = (),
        input_transforms: Sequence[Callable] = (),
        return_cuts: bool = True,
        tail_silence_prob: float = 0.0,
    ) -> None:
        self.load = LOADERS[opts.strategy](opts)
        self.is_audio = opts.strategy == "AudioSamples"
        self.seeds = tuple(seeds)
        self.cut_transforms = list(cut_transforms)
        self.input_transforms = list(input_transforms)
        self.return_cuts = return_cuts
        self.tail_silence_prob = tail_silence_prob
        self.samples_per_frame = opts.sample_rate // 100

    def __getitem__(self, item: Tuple[int, Any]) -> Dict[str, Any]:
        index, refs = item
        with seeded(batch_seed(*self.seeds, index)) as rng, _single_thread():
            cuts, dropped = _load_cuts(refs)
            for transform in self.cut_transforms if len(cuts) else ():
                cuts = transform(cuts, rng)
            return self._collate(index, cuts, dropped, rng)

    def _collate(
        self, index: int, cuts: Any, dropped: List[Tuple[str, str]], rng: random.Random
    ) -> Dict[str, Any]:
        kept, arrays = [], []
        for cut in cuts.sort_by_duration(ascending=False):
            if len(cut.supervisions) > 1:
                cut = cut.merge_supervisions()
            try:
                arrays.append(self._read(cut))
                kept.append(cut)
            except ImportError as e:  # not this cut's fault; the main process ends the run
                dropped.append((cut.id, f"{MISSING_PACKAGE}: {e}"))
            except OtherFeatures as e:  # nor is this
                dropped.append((cut.id, f"{OTHER_FEATURES}: {e}"))
            except Exception as e:  # lhotse's readers raise many kinds; one bad file must not end a run
                logging.debug("cannot load %s", cut.id, exc_info=True)
                dropped.append((cut.id, short_reason(e)))
        starts, lengths = _intervals(kept, arrays)
        silence = 0.0 if self.is_audio else LOG_EPS
        for i in range(len(arrays)):
            if self.tail_silence_prob > 0 and rng.random() < self.tail_silence_prob:
                tail = rng.randint(1, _MAX_TAIL_FRAMES) * (self.samples_per_frame if self.is_audio else 1)
                arrays[i] = np.concatenate(
                    [arrays[i], np.full((tail, *arrays[i].shape[1:]), silence, dtype=arrays[i].dtype)]
                )
                lengths[i] += tail
        inputs = _pad(arrays, silence)
        if arrays:
            segments = torch.stack([torch.arange(len(arrays), dtype=torch.int32), starts, lengths], dim=1)
            for transform in self.input_transforms:
                inputs = transform(inputs, supervision_segments=segments)
        unit = "sample" if self.is_audio else "frame"
        supervisions: Dict[str, Any] = {
            "text": [cut.supervisions[0].text if cut.supervisions else "" for cut in kept],
            "sequence_idx": torch.arange(len(kept), dtype=torch.int32),
            f"start_{unit}": starts,
            f"num_{unit}s": lengths,
        }
        if self.return_cuts:
            supervisions["cut"] = kept
        return {"inputs": inputs, "supervisions": supervisions, "batch_idx": index, "dropped": dropped}

    def _read(self, cut: Any) -> np.ndarray:
        array = self.load(cut)
        if array is None:
            raise ValueError("no stored features")
        if not np.isfinite(array).all():
            raise ValueError("not finite")
        return array


def _load_cuts(refs: Sequence[Any]) -> Tuple[Any, List[Tuple[str, str]]]:
    """The cuts that a sampler's references stand for, and (what, reason) of those that cannot be read."""
    from lhotse import CutSet

    cuts, dropped = [], []
    for ref in refs:
        try:
            cuts.append(load_cut(ref))
        except Exception as e:  # a damaged shard, of which there are as many kinds as of readers
            dropped.append((f"cut {ref.line[:60]!r}", short_reason(e)))
    return CutSet.from_cuts(cuts), dropped


def _pad(arrays: List[np.ndarray], value: float) -> Tensor:
    if not arrays:
        return torch.zeros(0, 0)
    longest = max(len(a) for a in arrays)
    out = torch.full((len(arrays), longest, *arrays[0].shape[1:]), value)
    for row, array in zip(out, arrays):
        row[: len(array)] = torch.from_numpy(array)
    return out


def _intervals(cuts: List[Any], arrays: List[np.ndarray]) -> Tuple[Tensor, Tensor]:
    """Start and length of each cut's supervision, in rows of its array."""
    starts, lengths = [], []
    for cut, array in zip(cuts, arrays):
        start, end = 0, len(array)
        if cut.supervisions:
            per_second = len(array) / cut.duration
            supervision = cut.supervisions[0]
            start = min(max(0, round(supervision.start * per_second)), len(array))
            if supervision.end < cut.duration - 0.005:
                end = max(start, min(len(array), round(supervision.end * per_second)))
        starts.append(start)
        lengths.append(end - start)
    return torch.tensor(starts, dtype=torch.int32), torch.tensor(lengths, dtype=torch.int32)


def short_reason(e: BaseException) -> str:
    """Why a recording could not be read, in one line."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return (
        f"unreadable ({type(e).__name__}: {lines[0][:160]})" if lines else f"unreadable ({type(e).__name__})"
    )
