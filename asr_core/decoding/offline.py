"""Decoding whole test sets: batches through encoder and search."""

import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.padding import pad_for_encoder, searched_frames
from asr_core.decoding.registry import get_method


class Decoded(NamedTuple):
    """One utterance of a test set.

    Attributes:
      cut_id: its cut's id.
      text: its transcript in the corpus' manifest.
      hypothesis: what was recognised.
      audio_seconds: its duration.
      compute_seconds: its share of the time that its batch took in encoder and search.
    """

    cut_id: str
    text: str
    hypothesis: Hypothesis
    audio_seconds: float
    compute_seconds: float


@torch.inference_mode()
def recognize(model: Any, x: Tensor, x_lens: Tensor, opts: SearchOptions, causal: bool, chunk_size: int = -1) -> List[Hypothesis]:
    """Recognise a batch of features.

    Args:
      model: an AsrModel in evaluation mode whose chunk size and left context are set, or a scripted one.
      x: (N, T, C) features.
      x_lens: (N,) int64.
      opts: search options.
      causal: whether the model is causal.
      chunk_size: in 50-Hz frames, -1 for unlimited; for causal models, which see their chunks as real streaming would.
    """
    padded, padded_lens = pad_for_encoder(x, x_lens, causal, chunk_size)
    encoder_out, encoder_out_lens = model.forward_encoder(padded, padded_lens)
    if causal and chunk_size > 0:
        encoder_out_lens = torch.minimum(encoder_out_lens, searched_frames(x_lens))
    return get_method(opts).search(model, encoder_out, encoder_out_lens.to(torch.int64), opts)


def supervised_frames(batch: Dict[str, Any]) -> Iterator[Tuple[Any, Tensor]]:
    """(cut, features (T, C)) of each utterance of a batch of the data module."""
    sup = batch["supervisions"]
    for row, cut in enumerate(sup["cut"]):
        start, length = int(sup["start_frame"][row]), int(sup["num_frames"][row])
        yield cut, batch["inputs"][row, start : start + length]


def collate(features: List[Tensor]) -> Tuple[Tensor, Tensor]:
    """Features (T, C) of several utterances as one batch (N, T, C) and its lengths (N,); the padding is set by the encoder's."""
    lens = torch.tensor([len(f) for f in features], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(features, batch_first=True), lens


def decode_batches(batches: Iterable[Dict[str, Any]], run: Callable[[Tensor, Tensor], List[Hypothesis]], device: Any) -> Iterator[Decoded]:
    """Decode the batches of a test loader.

    Args:
      batches: of :meth:`~asr_core.data.module.AsrDataModule.test_dataloader`, of features.
      run: (x (N, T, C), x_lens (N,)) -> N hypotheses, see :func:`recognize`.
      device: where the model is.
    """
    for batch in batches:
        cuts, features = zip(*supervised_frames(batch))
        x, x_lens = collate(list(features))
        begin = time.perf_counter()
        hypotheses = run(x.to(device), x_lens.to(device))
        spent = time.perf_counter() - begin
        total = sum(cut.duration for cut in cuts)
        for cut, hypothesis in zip(cuts, hypotheses):
            text = cut.supervisions[0].text if cut.supervisions else ""
            yield Decoded(cut.id, text or "", hypothesis, cut.duration, spent * cut.duration / total)
