"""Encoding of batches for a search."""

from typing import Iterator, Optional, Protocol, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.data.batch import Batch
from asr_core.data.device_features import inputs_on
from asr_core.decoding.padding import pad_for_encoder, searched_frames
from asr_core.decoding.precision import input_dtype
from asr_core.encoders.chunk_options import Chunk
from asr_core.encoders.protocol import FrameGeometry
from asr_core.utils.device import to_device

_CPU = torch.device("cpu")


class EncodingModel(Protocol):
    """A model that encodes whole utterances: an AsrModel whose chunk is set, or a scripted one."""

    @property
    def geometry(self) -> FrameGeometry: ...

    def forward_encoder(self, x: Tensor, x_lens: Tensor) -> Tuple[Tensor, Tensor]:
        """Map features (N, T, F) and their lengths to encoder output (N, T', C) and its lengths."""
        ...


def supervised_features(batch: Batch, device: torch.device = _CPU) -> Iterator[Tensor]:
    """Yield the features (T, F) of each utterance of a batch of the data module.

    Args:
      batch: the batch.
      device: where features are computed if the batch has audio instead.
    """
    sup = batch["supervisions"]
    inputs = inputs_on(batch, device) if "plan" in batch else batch["inputs"]
    spans = zip(sup["sequence_idx"].tolist(), sup["start_frame"].tolist(), sup["num_frames"].tolist())
    for row, start, length in spans:
        yield inputs[row, start : start + length]


def collate(features: Sequence[Tensor]) -> Tuple[Tensor, Tensor]:
    """Join the features (T, F) of several utterances to a batch (N, T, F) and its lengths (N,).

    The padding's values do not matter: :func:`encode_features` overwrites them.
    """
    lens = torch.tensor([len(f) for f in features], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True), lens


def encode_features(
    model: EncodingModel,
    x: Tensor,
    x_lens: Tensor,
    chunk: Optional[Chunk] = None,
    device: Optional[torch.device] = None,
) -> Tuple[Tensor, Tensor]:
    """Encode a batch; a causal model sees its chunks as in real streaming.

    Lengths on the CPU spare a host that waiting for its GPU would stop.

    Args:
      model: in evaluation mode.
      x: (N, T, F) features.
      x_lens: (N,) int64.
      chunk: chunk of a causal model; None for others.
      device: the model's, if not that of ``x``.

    Returns:
      The encoder output (N, T', C), and the number of its frames to search, (N,) int64; none of an
      utterance without frames.
    """
    size = -1 if chunk is None else chunk.size
    padded, padded_lens = pad_for_encoder(x, x_lens, chunk is not None, size, model.geometry)
    device = x.device if device is None else device
    padded, padded_lens, x_lens = (to_device(t, device) for t in (padded, padded_lens, x_lens))
    encoder_out, lens = model.forward_encoder(padded.to(input_dtype(model)), padded_lens)
    if size > 0:
        lens = torch.minimum(lens, searched_frames(x_lens, model.geometry))
    return encoder_out, lens.to(torch.int64) * (x_lens > 0)
