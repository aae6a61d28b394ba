"""The dataset that turns the cuts of a batch into tensors; each batch has its own random seed."""

import contextlib
import hashlib
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Callable, Iterator, List, Protocol, Sequence, Tuple, TypeVar, Union

import numpy as np
import torch
from lhotse import CutSet
from torch import Tensor

import asr_core.data.storage  # noqa: F401  (makes the format of stored features known to lhotse)
from asr_core.data.batch import Batch, Supervisions
from asr_core.data.cut_audio import load_samples
from asr_core.data.cut_refs import CutRef, files_of_ref, load_cut, name_of
from asr_core.data.device_features import AudioPlan, FeatureForm
from asr_core.data.features import LOG_EPS, extract_features
from asr_core.data.filter import text_of
from asr_core.data.log_mel import num_frames
from asr_core.data.masks import draw_masks_of
from asr_core.data.mixing import plan_mix
from asr_core.data.options import FIRST, DataOptions, FeatureOptions
from asr_core.data.patience import patiently, sources_of
from asr_core.data.read_errors import DroppedCut, OtherFeatures, UnreadableCut, as_read_error, short_reason
from asr_core.data.waveforms import CutAudio, read_waveforms

if TYPE_CHECKING:
    from lhotse import Features
    from lhotse.cut import Cut

# Frames of digital silence. Decoding a causal model appends 30 frames, and what fills its last
# chunk.
_MAX_TAIL_FRAMES = 40
# Seconds by which a supervision may end before its cut and still count as reaching its end: half a
# frame.
_END_TOLERANCE = 0.005

Loader = Callable[["Cut"], np.ndarray]
T = TypeVar("T")


class CutTransform(Protocol):
    """A change of the cuts of a training batch, such as added noise."""

    def __call__(self, cuts: CutSet, rng: random.Random) -> CutSet:
        """Return the changed cuts."""


class InputTransform(Protocol):
    """A change of the inputs of a training batch, such as SpecAugment, with lhotse's signature."""

    def __call__(self, x: Tensor, supervision_segments: Tensor) -> Tensor:
        """Return the changed inputs (N, T, C).

        Args:
          x: (N, T, C) inputs.
          supervision_segments: (N, 3) int32: row, first frame and number of frames of each
            supervision.
        """


def batch_seed(*parts: int) -> int:
    """Return a 32-bit seed that depends on all ``parts``, e.g. (seed, epoch, rank, batch index)."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[random.Random]:
    """Seed all random sources within the block; restore their states afterwards."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)  # not the GPU's, which dropout draws from
        yield random.Random(seed)
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


@contextlib.contextmanager
def _single_thread() -> Iterator[None]:
    """Limit torch to one thread: the tensors of single utterances are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class StoredFeatures:
    """Loader of stored features (T, C) of a cut, noise mixed in if the cut carries any.

    Raises:
      OtherFeatures: they are not those that the options name.
    """

    def __init__(self, opts: FeatureOptions) -> None:
        self.opts = opts

    def __call__(self, cut: "Cut") -> np.ndarray:
        for track in getattr(cut, "tracks", None) or [cut]:
            features = getattr(getattr(track, "cut", track), "features", None)
            if features is not None:
                self._check(features)
        array = cut.load_features()
        if array is not None and self.opts.feature_type == "log-mel":
            # lhotse repeats the last frame where its own rule counts one more.
            num_samples = round(cut.duration * self.opts.sample_rate)
            array = array[: num_frames(num_samples, self.opts.sample_rate)]
        return array

    def _check(self, features: "Features") -> None:
        # Other programs store Kaldi-compatible features under many names.
        opts, found = self.opts, features.type if features.type == "log-mel" else "fbank"
        for name, value, wanted in (
            ("--feature-type", found, opts.feature_type),
            ("--num-mel-bins", features.num_features, opts.num_mel_bins),
            ("--sample-rate", features.sampling_rate, opts.sample_rate),
        ):
            if value != wanted:
                raise OtherFeatures(
                    f"not those of the model: prepared with {name} {value}, not {wanted}; "
                    "give the same to both programs, or --on-the-fly-feats 1"
                )


class FeaturesOfAudio:
    """Loader that computes features (T, C) from the audio of a cut.

    Args:
      opts: the features.
      channel: see :func:`~asr_core.data.cut_audio.load_samples`.
    """

    def __init__(self, opts: FeatureOptions, channel: str = FIRST) -> None:
        self.form = (opts.sample_rate, opts.num_mel_bins, opts.feature_type)
        self.channel = channel

    def __call__(self, cut: "Cut") -> np.ndarray:
        sample_rate = self.form[0]
        if cut.sampling_rate != sample_rate:
            cut = cut.resample(sample_rate)
        return extract_features(torch.from_numpy(load_samples(cut, self.channel)), *self.form).numpy()


class AudioForDevice:
    """Loader of the audio of cuts whose features the device computes.

    Args:
      opts: the features.
      channel: see :func:`~asr_core.data.cut_audio.load_samples`.
    """

    def __init__(self, opts: FeatureOptions, channel: str = FIRST) -> None:
        self.form = FeatureForm(opts.sample_rate, opts.num_mel_bins, opts.feature_type)
        self.channel = channel

    def __call__(self, cut: "Cut") -> CutAudio:
        return read_waveforms(cut, self.form.sample_rate, self.channel)

    def plan(self, audio: Sequence[CutAudio], tails: Sequence[int]) -> Tuple[Tensor, AudioPlan]:
        """Return the samples of 16 bits of cuts, and how their features are computed.

        Args:
          audio: N cuts.
          tails: frames of silence at the end of each.
        """
        words, mix = plan_mix(audio)
        frames = [self.form.count_frames(cut.size) for cut in audio]
        return words, AudioPlan(
            form=self.form,
            mix=mix,
            num_frames=torch.tensor(frames, dtype=torch.int64),
            width=max((f + t for f, t in zip(frames, tails)), default=0),
        )


def make_loader(opts: DataOptions) -> "Union[Loader, AudioForDevice]":
    """Return what reads a cut under the input strategy: its row of ``inputs``, or its audio."""
    if opts.features_on_device:
        return AudioForDevice(opts, opts.channel)
    if opts.strategy == "AudioSamples":
        return partial(load_samples, choice=opts.channel)
    if opts.strategy == "OnTheFlyFeatures":
        return FeaturesOfAudio(opts, opts.channel)
    return StoredFeatures(opts)


class SpeechDataset(torch.utils.data.Dataset):
    """Dataset whose items are whole batches, see :class:`~asr_core.data.batch.Batch`.

    Args:
      opts: data options.
      seeds: seeds of the random sources of all batches, e.g. (seed, epoch, rank).
      cut_transforms: changes of the cuts.
      input_transforms: changes of the inputs.
      return_cuts: whether batches carry their cuts.
      tail_silence_prob: probability of digital silence at the end of an utterance.
    """

    def __init__(
        self,
        opts: DataOptions,
        seeds: Sequence[int],
        *,
        cut_transforms: Sequence[CutTransform] = (),
        input_transforms: Sequence[InputTransform] = (),
        return_cuts: bool = True,
        tail_silence_prob: float = 0.0,
    ) -> None:
        self.load = make_loader(opts)
        self.is_audio = opts.strategy == "AudioSamples"
        self.is_stored = opts.strategy == "PrecomputedFeatures"
        self.seeds = tuple(seeds)
        self.cut_transforms = list(cut_transforms)
        self.input_transforms = list(input_transforms)
        self.return_cuts = return_cuts
        self.tail_silence_prob = tail_silence_prob
        self.samples_per_frame = opts.sample_rate // 100

    def __getitem__(self, item: Tuple[int, Sequence[CutRef]]) -> Batch:
        index, refs = item
        with seeded(batch_seed(*self.seeds, index)) as rng, _single_thread():
            cuts, dropped = _load_cuts(refs)
            for transform in self.cut_transforms if len(cuts) else ():
                cuts = transform(cuts, rng)
            if isinstance(self.load, AudioForDevice):
                return self._audio_batch(self.load, cuts, index, dropped, rng)
            kept, arrays = self._read_all(cuts, partial(_read_array, self.load), dropped)
            tails = self._draw_tails(len(kept), rng)
            sizes = [len(array) for array in arrays]
            supervisions, segments = self._supervisions(kept, sizes, tails)
            return {
                "inputs": self._inputs(arrays, tails, segments),
                "supervisions": supervisions,
                "batch_idx": index,
                "dropped": dropped,
            }

    def _audio_batch(
        self,
        load: AudioForDevice,
        cuts: CutSet,
        index: int,
        dropped: List[DroppedCut],
        rng: random.Random,
    ) -> Batch:
        """Read cuts, of which the device is to compute the features."""
        kept, audio = self._read_all(cuts, load, dropped)
        tails = self._draw_tails(len(kept), rng)
        words, plan = load.plan(audio, tails)
        supervisions, segments = self._supervisions(kept, plan.num_frames.tolist(), tails)
        return {
            "inputs": words,
            "supervisions": supervisions,
            "batch_idx": index,
            "dropped": dropped,
            "plan": self._with_masks(plan, segments),
        }

    def _read_all(
        self, cuts: CutSet, read: Callable[["Cut"], T], dropped: List[DroppedCut]
    ) -> Tuple[List["Cut"], List[T]]:
        """Read the cuts, longest first; note in ``dropped`` those that cannot be read."""
        kept, contents = [], []
        for cut in cuts.sort_by_duration(ascending=False):
            if len(cut.supervisions) > 1:
                cut = cut.merge_supervisions()
            try:
                contents.append(patiently(partial(read, cut), partial(sources_of, cut, self.is_stored)))
                kept.append(cut)
            except Exception as e:  # lhotse's readers raise many kinds; one bad file must not end a run
                logging.debug("cannot load %s", cut.id, exc_info=True)
                dropped.append(DroppedCut(cut.id, as_read_error(e)))
        return kept, contents

    def _draw_tails(self, count: int, rng: random.Random) -> List[int]:
        """Draw how many rows of silence each array gets at its end."""
        p, unit = self.tail_silence_prob, self.samples_per_frame if self.is_audio else 1
        draws = (p > 0 and rng.random() < p for _ in range(count))
        return [rng.randint(1, _MAX_TAIL_FRAMES) * unit if chosen else 0 for chosen in draws]

    @property
    def _silence(self) -> float:
        return 0.0 if self.is_audio else LOG_EPS

    def _inputs(self, arrays: List[np.ndarray], tails: Sequence[int], segments: Tensor) -> Tensor:
        """Pad the arrays, with silence after them, into one tensor and transform it.

        It is (N, T, C) or (N, num_samples).
        """
        inputs = _pad(arrays, self._silence, tails)
        for transform in self.input_transforms if arrays else ():
            inputs = transform(inputs, supervision_segments=segments)
        return inputs

    def _with_masks(self, plan: AudioPlan, segments: Tensor) -> AudioPlan:
        """Add what the transforms do to features yet to be computed."""
        shape = (len(segments), plan.width, plan.form.num_mel_bins)
        for transform in self.input_transforms if len(segments) else ():
            plan = plan._replace(masks=draw_masks_of(transform, shape, segments))
        return plan

    def _supervisions(
        self, cuts: List["Cut"], sizes: Sequence[int], tails: Sequence[int]
    ) -> Tuple[Supervisions, Tensor]:
        """Return the supervisions of N cuts, and their segments.

        The segments are (N, 3) int32: row, start and length.
        """
        starts, lengths = _intervals(cuts, sizes, tails)
        rows = torch.arange(len(cuts), dtype=torch.int32)
        supervisions: Supervisions = {"text": [text_of(cut) for cut in cuts], "sequence_idx": rows}
        if self.is_audio:
            supervisions["start_sample"], supervisions["num_samples"] = starts, lengths
        else:
            supervisions["start_frame"], supervisions["num_frames"] = starts, lengths
        if self.return_cuts:
            supervisions["cut"] = cuts
        return supervisions, torch.stack([rows, starts, lengths], dim=1)


def _read_array(load: Loader, cut: "Cut") -> np.ndarray:
    """Read a cut by a loader of arrays.

    Raises:
      ValueError: it has no features, or they are not finite.
    """
    array = load(cut)
    if array is None:
        raise ValueError("no stored features")
    if not np.isfinite(array).all():
        raise ValueError("not finite")
    return array


def _load_cuts(refs: Sequence[CutRef]) -> Tuple[CutSet, List[DroppedCut]]:
    """Build the cuts that references stand for; return them, and those that cannot be built."""
    cuts, dropped = [], []
    for ref in refs:
        try:
            cuts.append(patiently(partial(load_cut, ref), partial(files_of_ref, ref)))
        except Exception as e:  # a damaged shard, of which there are as many kinds as of readers
            dropped.append(DroppedCut(name_of(ref), UnreadableCut(short_reason(e))))
    return CutSet.from_cuts(cuts), dropped


def _pad(arrays: List[np.ndarray], value: float, tails: Sequence[int] = ()) -> Tensor:
    """Pad arrays with ``value`` into one tensor, as long as the longest with its tail."""
    if not arrays:
        return torch.zeros(0, 0)
    longest = max(len(array) + tail for array, tail in zip(arrays, tails or [0] * len(arrays)))
    out = torch.full((len(arrays), longest, *arrays[0].shape[1:]), value)
    for row, array in zip(out, arrays):
        row[: len(array)] = torch.from_numpy(array)
    return out


def _intervals(cuts: Sequence["Cut"], sizes: Sequence[int], tails: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """Return start and length (N,) of each cut's supervision, in its rows of the inputs.

    Args:
      cuts: N cuts.
      sizes: their numbers of rows.
      tails: rows of silence after them, which belong to the supervision.
    """
    starts, lengths = [], []
    for cut, size, tail in zip(cuts, sizes, tails):
        start, end = 0, size
        if cut.supervisions:
            per_second = size / cut.duration if cut.duration > 0 else 0.0
            supervision = cut.supervisions[0]
            start = min(max(0, round(supervision.start * per_second)), size)
            if supervision.end < cut.duration - _END_TOLERANCE:
                end = max(start, min(size, round(supervision.end * per_second)))
        starts.append(start)
        lengths.append(end - start + tail)
    return torch.tensor(starts, dtype=torch.int32), torch.tensor(lengths, dtype=torch.int32)
