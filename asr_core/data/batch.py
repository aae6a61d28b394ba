"""The layout of a batch."""

from typing import TYPE_CHECKING, Any, List, Mapping, TypedDict

import torch
from torch import Tensor

from asr_core.data.read_errors import DroppedCut

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from asr_core.data.device_features import AudioPlan


class Supervisions(TypedDict, total=False):
    """The supervisions of a batch, one per cut; joined cuts have one text.

    N is the number of cuts. Batches of features have ``start_frame`` and ``num_frames``, batches of
    audio ``start_sample`` and ``num_samples``; ``cut`` exists only on request.

    Attributes:
      text: N transcripts.
      sequence_idx: (N,) int32, row of each cut in ``inputs``.
      start_frame, num_frames: (N,) int32, where in its row each supervision lies.
      start_sample, num_samples: (N,) int32, the same in samples.
      cut: N cuts.
    """

    text: List[str]
    sequence_idx: Tensor
    start_frame: Tensor
    num_frames: Tensor
    start_sample: Tensor
    num_samples: Tensor
    cut: "List[Cut]"


class _Batch(TypedDict):
    inputs: Tensor
    supervisions: Supervisions
    batch_idx: int
    dropped: List[DroppedCut]


class Batch(_Batch, total=False):
    """A batch, in the form of lhotse's K2SpeechRecognitionDataset.

    Attributes:
      inputs: (N, T, C) float32 features of N cuts, T frames of the longest, C mel filters, padded
        with ``LOG_EPS``; or (N, num_samples) audio, padded with 0.
      supervisions: see :class:`Supervisions`.
      batch_idx: position in the epoch, from 0.
      dropped: cuts that could not be read. If none could, ``inputs`` has N = 0.
      plan: only with ``--features-on-device``. ``inputs`` then are the samples of 16 bits of all
        waveforms, (num_samples,) int16; those of more bits are in the plan, which says how
        :func:`~asr_core.data.device_features.inputs_on` makes features of both.
    """

    plan: "AudioPlan"


def with_words(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the cuts of a batch whose transcripts have words; all of them if none has."""
    texts = batch["supervisions"]["text"]
    rows = [i for i, text in enumerate(texts) if text.strip()]
    if len(rows) in (0, len(texts)):
        return batch
    index = torch.tensor(rows)
    supervisions = {
        name: values[index] if isinstance(values, Tensor) else [values[i] for i in rows]
        for name, values in batch["supervisions"].items()
    }
    supervisions["sequence_idx"] = torch.arange(len(rows), dtype=torch.int32)
    return {**batch, "inputs": batch["inputs"][index], "supervisions": supervisions}
