"""The data of a speech-recognition training, as the training loop sees it."""

from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    cast,
)

import torch

from asr_core.data.cut_refs import CutRef, LineRef, SharRef
from asr_core.data.cut_summary import view_of_line
from asr_core.data.device_features import shape_of_features
from asr_core.data.module import AsrDataModule, Survey
from asr_core.training.batch_loss import BatchSize
from asr_core.training.task import Batch, Trial

if TYPE_CHECKING:
    from lhotse import CutSet

_FRAMES_PER_SECOND = 100  # of the features, before subsampling


@dataclass(eq=False)
class AsrData:
    """Training and validation cuts and the loaders that make batches of them.

    Its batches have the form of :class:`asr_core.data.batch.Batch`.

    Attributes:
      module: the loaders.
      train_cuts: training cuts.
      valid_cuts: validation cuts by name.
      survey: logs what the sets hold and returns the survey of the training set.
      scan_for_oom: whether the largest batches are tried before training; None: on GPUs.
    """

    module: AsrDataModule
    train_cuts: "CutSet"
    valid_cuts: Mapping[str, "CutSet"]
    survey: Callable[[AsrDataModule, "CutSet", Mapping[str, "CutSet"]], Survey]
    scan_for_oom: Optional[bool] = None

    @property
    def num_dropped(self) -> int:
        """Number of cuts left out so far."""
        return self.module.dropped.total

    @property
    def valid_sets(self) -> Sequence[str]:
        """The names of the validation sets."""
        return list(self.valid_cuts)

    def train_batches(self, epoch: int, skip_batches: int = 0, bucket_run: int = 0) -> Iterable[Batch]:
        """Return this rank's batches of one epoch, see :meth:`TaskData.train_batches`."""
        return self.module.train_dataloader(self.train_cuts, epoch, skip_batches, bucket_run)

    def valid_batches(self, name: str) -> Iterable[Batch]:
        """Return this rank's batches of one validation set."""
        return self.module.valid_dataloader(self.valid_cuts[name])

    def size_of(self, batch: Batch) -> BatchSize:
        """Return the number of utterances and their seconds of audio."""
        supervisions = batch["supervisions"]
        seconds = float(supervisions["num_frames"].sum()) / _FRAMES_PER_SECOND
        return BatchSize(len(supervisions["text"]), seconds)

    def describe(self, batch: Batch) -> List[Dict[str, object]]:
        """Describe the utterances of a batch, see :func:`describe_cuts`."""
        return describe_cuts(batch)

    def shape_of(self, batch: Batch) -> List[int]:
        """Return the shape of the features."""
        return shape_of_features(batch)

    def report(self) -> float:
        """Log the sizes of all sets; return the seconds of audio in an epoch."""
        return self.survey(self.module, self.train_cuts, self.valid_cuts).seconds

    def memory_trials(self, device: torch.device) -> Optional["CutTrials"]:
        """Return the largest batches of the first epoch, as ``--scan-for-oom`` asks for them."""
        if not (device.type == "cuda" if self.scan_for_oom is None else self.scan_for_oom):
            return None
        return CutTrials(self.module, self.train_cuts)


def describe_cuts(batch: Batch) -> List[Dict[str, object]]:
    """Describe the utterances of a batch.

    Returns:
      For each utterance ``id``, ``recording``, ``duration`` in seconds and ``text``; None stands
      for what the batch does not hold.
    """
    supervisions = batch["supervisions"]
    cuts = supervisions.get("cut") or [None] * len(supervisions["text"])
    return [
        {
            "id": getattr(cut, "id", repr(text)),
            "recording": _recording(cut),
            "duration": getattr(cut, "duration", None),
            "text": text,
        }
        for cut, text in zip(cuts, supervisions["text"])
    ]


def _recording(cut: object) -> Optional[str]:
    tracks = getattr(cut, "tracks", None)
    recording = getattr(tracks[0].cut if tracks else cut, "recording", None)
    return None if recording is None else recording.id


# -- the largest batches ----------------------------------------------------------------------


def sizes_of(refs: Sequence[CutRef]) -> Dict[str, float]:
    """Return the sizes of a batch in several respects, by name; no audio is loaded."""
    views = [
        view_of_line(ref.line, ref.speed, allow_commands=True) if isinstance(ref, (LineRef, SharRef)) else ref
        for ref in refs
    ]
    durations = [view.duration for view in views]
    return {
        "the longest utterance": max(durations),
        "the most audio, padding counted": max(durations) * len(durations),
        "the most audio": sum(durations),
        "the most cuts": len(durations),
        "the most text": sum(len(str(s.text or "")) for view in views for s in view.supervisions),
    }


def find_extremes(batches: Iterable[Tuple[int, Sequence[CutRef]]]) -> List[Trial]:
    """Return the batches that are the largest in one respect or another.

    Args:
      batches: (position in the epoch, cuts) of each batch.
    """
    best: Dict[str, Tuple[float, Trial]] = {}
    for position, refs in batches:
        for name, size in sizes_of(refs).items():
            if name not in best or size > best[name][0]:
                best[name] = (size, Trial(name, position, refs))
    merged: Dict[int, Trial] = {}
    for _, trial in best.values():
        known = merged.get(trial.position)
        reason = f"{known.reason}, {trial.reason}" if known else trial.reason
        merged[trial.position] = trial._replace(reason=reason)
    return [trial._replace(items=_longest_first(_refs(trial))) for trial in merged.values()]


def _longest_first(refs: Sequence[CutRef]) -> List[CutRef]:
    return sorted(refs, key=lambda ref: -sizes_of([ref])["the longest utterance"])


def _refs(trial: Trial) -> Sequence[CutRef]:
    return cast(Sequence[CutRef], trial.items)


class CutTrials:
    """The batches of the first epoch that are the largest in one respect or another.

    Args:
      module: the data module.
      train_cuts: training cuts.
    """

    def __init__(self, module: AsrDataModule, train_cuts: "CutSet") -> None:
        self.max_duration = module.opts.max_duration
        self._loader = module.train_dataloader(train_cuts, 1, bucket_run=1)
        self._loader.sampler.first, self._loader.sampler.step = 0, 1  # the batches of all ranks

    def find(self) -> List[Trial]:
        """Find the largest batches of the epoch; only durations and texts are read."""
        return find_extremes(self._loader.sampler)

    def load(self, trial: Trial, num_items: int) -> Optional[Batch]:
        """Load the batch of the ``num_items`` longest cuts; None if none of them can be read."""
        batch = self._loader.dataset[(trial.position, _refs(trial)[:num_items])]
        return batch if len(batch["supervisions"]["text"]) else None

    def advice(self, trial: Trial, num_fit: int) -> str:
        """Return how large the batch is and which ``--max-duration`` would fit."""
        return batch_advice(trial, num_fit, self.max_duration)


def batch_advice(trial: Trial, num_fit: int, max_duration: float) -> str:
    """Return a description of a batch that exhausts memory, and the options that would avoid it.

    Args:
      trial: the batch.
      num_fit: number of its cuts that fit into memory, counted from the longest.
      max_duration: the present ``--max-duration``, in seconds.
    """
    sizes = sizes_of(_refs(trial))
    line = (
        f"the batch with {trial.reason}: {len(trial.items)} cuts, {sizes['the most audio']:.0f} s, "
        f"the longest of {sizes['the longest utterance']:.1f} s, at --max-duration {max_duration:g}"
    )
    if not num_fit:
        return (
            f"{line}; not even one of its cuts fits alone: lower --max-utt-duration or take a smaller model"
        )
    # 5 % are left for what single trials do not show: fragmentation, and batches of other shapes.
    room = int(0.95 * sizes_of(_refs(trial)[:num_fit])["the most audio, padding counted"])
    return f"{line}; {num_fit} of its cuts fit, so --max-duration {room} will do"
