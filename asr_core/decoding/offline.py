"""Decoding whole test sets: batches through encoder and search."""

import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.padding import pad_for_encoder, searched_frames
from asr_core.decoding.registry import Job, get_method
from asr_core.decoding.resources import Resources


class Decoded(NamedTuple):
    """One utterance of a test set.

    Attributes:
      cut_id: its cut's id.
      text: its transcript in the corpus' manifest.
      hypotheses: what was recognised, by the name of the result ("" where the method has one).
      audio_seconds: its duration.
      compute_seconds: its share of the time that its batch took in encoder and search.
    """

    cut_id: str
    text: str
    hypotheses: Dict[str, Hypothesis]
    audio_seconds: float
    compute_seconds: float


@torch.inference_mode()
def recognize_all(
    model: Any,
    x: Tensor,
    x_lens: Tensor,
    opts: SearchOptions,
    causal: bool,
    chunk_size: int = -1,
    resources: Resources = Resources(),
    references: Optional[Sequence[Sequence[int]]] = None,
) -> Dict[str, List[Hypothesis]]:
    """Recognise a batch of features; returns all that the method finds, by name.

    Args:
      model: an AsrModel in evaluation mode whose chunk size and left context are set, or a scripted one.
      x: (N, T, C) features.
      x_lens: (N,) int64.
      opts: search options.
      causal: whether the model is causal.
      chunk_size: in 50-Hz frames, -1 for unlimited; for causal models, which see their chunks as real streaming would.
      resources: what the method needs besides the model.
      references: token ids of the transcripts, for oracles.
    """
    padded, padded_lens = pad_for_encoder(x, x_lens, causal, chunk_size, model.geometry)
    encoder_out, encoder_out_lens = model.forward_encoder(padded, padded_lens)
    if causal and chunk_size > 0:
        encoder_out_lens = torch.minimum(encoder_out_lens, searched_frames(x_lens, model.geometry))
    return get_method(opts).search(Job(model, encoder_out, encoder_out_lens.to(torch.int64), opts, resources, references))


def recognize(model: Any, x: Tensor, x_lens: Tensor, opts: SearchOptions, causal: bool, chunk_size: int = -1) -> List[Hypothesis]:
    """The hypotheses of :func:`recognize_all` for a method of one answer that needs nothing but the model."""
    return recognize_all(model, x, x_lens, opts, causal, chunk_size)[""]


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


def decode_batches(
    batches: Iterable[Dict[str, Any]], run: Callable[[Tensor, Tensor, List[str]], Dict[str, List[Hypothesis]]], device: Any
) -> Iterator[Decoded]:
    """Decode the batches of a test loader.

    Args:
      batches: of :meth:`~asr_core.data.module.AsrDataModule.test_dataloader`, of features.
      run: (x (N, T, C), x_lens (N,), transcripts) -> N hypotheses by name of the result, see :func:`recognize_all`.
      device: where the model is.
    """
    for batch in batches:
        cuts, features = zip(*supervised_frames(batch))
        x, x_lens = collate(list(features))
        texts = [(cut.supervisions[0].text or "") if cut.supervisions else "" for cut in cuts]
        begin = time.perf_counter()
        results = run(x.to(device), x_lens.to(device), texts)
        spent = time.perf_counter() - begin
        total = sum(cut.duration for cut in cuts)
        for i, (cut, text) in enumerate(zip(cuts, texts)):
            found = {key: hypotheses[i] for key, hypotheses in results.items()}
            yield Decoded(cut.id, text, found, cut.duration, spent * cut.duration / total)
