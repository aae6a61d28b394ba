"""Decoding of whole utterances: batches through encoder and search."""

import time
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor

from asr_core.data.batch import Batch
from asr_core.decoding.confidence import with_confidences
from asr_core.decoding.device.queue import EncoderQueue, behind
from asr_core.decoding.encoding import collate, encode_features, supervised_features
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import BEST, Job, Results, Transcripts
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.options import RecordOptions
from asr_core.decoding.output.utterance import Decoded, transcript_of
from asr_core.decoding.protocol import RecognitionModel
from asr_core.decoding.registry import get_method
from asr_core.decoding.resources import Resources
from asr_core.decoding.segmentation import Piece, batches_of
from asr_core.decoding.windows import Windows
from asr_core.encoders.chunk_options import Chunk
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from lhotse.cut import Cut

# Texts of a batch -> what an oracle compares with
MakeReferences = Callable[[Sequence[str]], Transcripts]
# Row of the batch, tokens, timestamps
_Identity = Tuple[int, Tuple[int, ...], Tuple[int, ...]]


@torch.inference_mode()
def encode(
    model: RecognitionModel,
    x: Tensor,
    x_lens: Tensor,
    opts: SearchOptions,
    *,
    chunk: Optional[Chunk] = None,
    resources: Resources = Resources(),
    references: Optional[Transcripts] = None,
    num_best: int = 1,
    device: Optional[torch.device] = None,
) -> Job:
    """Encode a batch of features, ready to search.

    Args:
      model: an AsrModel in evaluation mode whose chunk is set, or a scripted one.
      x: (N, T, F) features.
      x_lens: (N,) int64.
      opts, resources, references, num_best: see :class:`Job`.
      chunk: chunk of a causal model, which sees its chunks as in real streaming; None for others.
      device: the model's, if not that of ``x``.
    """
    encoder_out, lens = encode_features(model, x, x_lens, chunk, device)
    return Job(
        model=model,
        encoder_out=encoder_out,
        lens=lens,
        opts=opts,
        resources=resources,
        references=references,
        num_best=num_best,
    )


@torch.inference_mode()
def search(job: Job) -> Results:
    """Search a batch with the method that ``job.opts`` name."""
    return get_method(job.opts.decoding_method).search(job)


class _Found(NamedTuple):
    """The results of a batch, and the seconds that encoder and search took."""

    results: Results
    seconds: float


class _Begun(NamedTuple):
    """A batch whose encoder has begun.

    Attributes:
      cuts: its utterances.
      features: (T, F) of each.
      long: for each whether it is to be decoded piece by piece.
      encoded: the batch, encoded; None if any is.
      seconds: that it has taken so far.
    """

    cuts: Sequence["Cut"]
    features: Sequence[Tensor]
    long: Sequence[bool]
    encoded: Optional[Job]
    seconds: float


@dataclass(frozen=True)
class OfflineDecoder:
    """Decodes the batches of a test loader.

    Attributes:
      model: see :func:`encode`.
      opts: options of the search.
      chunk: chunk of a causal model; None for others.
      resources: resources of the method besides the model.
      references: makes references of transcripts; None unless the method is an oracle.
      windows: how long utterances are divided; None: they are not.
      records: what is wanted besides the answers.
      device: device of the model.
    """

    model: RecognitionModel
    opts: SearchOptions
    chunk: Optional[Chunk] = None
    resources: Resources = Resources()
    references: Optional[MakeReferences] = None
    windows: Optional[Windows] = None
    records: RecordOptions = RecordOptions()
    device: torch.device = torch.device("cpu")

    def decode(self, batches: Iterable[Batch]) -> Iterator[Decoded]:
        """Decode batches of :meth:`~asr_core.data.module.AsrDataModule.test_dataloader`.

        Confidences are made after the search, and their time is not counted.

        Raises:
          UserError: the method is an oracle, and an utterance is too long to be decoded whole.
        """
        encoder = EncoderQueue(self.device)
        for begun in behind((self._begin(batch, encoder) for batch in batches), encoder.ahead):
            found = self._finish(begun, encoder)
            # a batch's time is shared out by duration
            total = sum(cut.duration for cut in begun.cuts) or 1.0
            for i, cut in enumerate(begun.cuts):
                yield Decoded.of_cut(
                    cut,
                    {name: lists[i][0] for name, lists in found.results.items()},
                    compute_seconds=found.seconds * cut.duration / total,
                    nbest=found.results[BEST][i] if self.records.write_nbest else (),
                    in_windows=begun.long[i],
                )

    def _begin(self, batch: Batch, encoder: EncoderQueue) -> _Begun:
        """Encode a batch, or leave a GPU to it."""
        cuts = batch["supervisions"]["cut"]
        with encoder.queued():
            features = list(supervised_features(batch, self.device))
            long = [self.windows is not None and self.windows.needed(f) for f in features]
            if any(long):
                self._check_windows(next(cut.id for cut, is_long in zip(cuts, long) if is_long))
                return _Begun(cuts, features, long, None, 0.0)
            begin = time.perf_counter()
            job = self._job(features, [transcript_of(cut) for cut in cuts])
            return _Begun(cuts, features, long, job, time.perf_counter() - begin)

    def _finish(self, begun: _Begun, encoder: EncoderQueue) -> _Found:
        """Search a batch whose encoder has begun."""
        if begun.encoded is None:
            encoder.wait_for(*begun.features)
            return self._in_windows(begun.features)
        begin = time.perf_counter()
        encoder.wait_for(begun.encoded.encoder_out, begun.encoded.lens)
        return self._searched(begun.encoded, begin - begun.seconds)

    def _check_windows(self, cut_id: str) -> None:
        if self.references is not None and self.windows is not None:
            raise UserError(
                f"{cut_id} is longer than --max-segment {self.windows.max_segment:g}, but "
                f"{self.opts.decoding_method} compares whole transcripts: leave it out, or give a larger one"
            )

    def _in_windows(self, features: Sequence[Tensor]) -> _Found:
        """Decode utterances (T, F) piece by piece, and join what is found."""
        assert self.windows is not None, "without them no utterance is too long"
        factor = self.model.geometry.subsampling_factor
        pieces = self.windows.pieces(features, factor)
        found: Dict[Piece, Results] = {}
        seconds = 0.0
        for group in batches_of(pieces, self.windows.max_duration):
            part = self._found([features[p.row][p.first : p.end] for p in group], [""] * len(group))
            seconds += part.seconds
            for i, piece in enumerate(group):
                found[piece] = {name: [lists[i]] for name, lists in part.results.items()}
        results = self.windows.join(
            pieces,
            [found[piece] for piece in pieces],
            factor=factor,
            num_best=self.records.write_nbest,
        )
        return _Found(results, seconds)

    def _found(self, features: Sequence[Tensor], texts: Sequence[str]) -> _Found:
        """Decode a batch of features (T, F) and time it."""
        begin = time.perf_counter()
        return self._searched(self._job(features, texts), begin)

    def _searched(self, job: Job, begin: float) -> _Found:
        """Search a batch whose time counts from ``begin``."""
        results = search(job)
        seconds = time.perf_counter() - begin
        if self.records.write_confidence:
            results = _with_confidences(job, results, self.records)
        return _Found(results, seconds)

    def _job(self, features: Sequence[Tensor], texts: Sequence[str]) -> Job:
        return encode(
            self.model,
            *collate(features),
            self.opts,
            chunk=self.chunk,
            resources=self.resources,
            references=self.references(texts) if self.references else None,
            num_best=max(1, self.records.write_nbest),
            device=self.device,
        )


def _with_confidences(job: Job, results: Results, records: RecordOptions) -> Results:
    """Return the results with confidences; a hypothesis of several results is evaluated once."""
    places: Dict[_Identity, int] = {}
    rows: List[int] = []
    hypotheses: List[Hypothesis] = []
    for lists in results.values():
        for row, hypothesis in _each(lists):
            if places.setdefault(_identity(row, hypothesis), len(rows)) == len(rows):
                rows.append(row)
                hypotheses.append(hypothesis)
    done = with_confidences(job, rows, hypotheses, records)

    def confident(row: int, hypothesis: Hypothesis) -> Hypothesis:
        return hypothesis._replace(confidences=done[places[_identity(row, hypothesis)]].confidences)

    return {
        name: [[confident(row, hypothesis) for hypothesis in found] for row, found in enumerate(lists)]
        for name, lists in results.items()
    }


def _each(lists: Sequence[Sequence[Hypothesis]]) -> Iterator[Tuple[int, Hypothesis]]:
    for row, found in enumerate(lists):
        for hypothesis in found:
            yield row, hypothesis


def _identity(row: int, hypothesis: Hypothesis) -> _Identity:
    return row, tuple(hypothesis.tokens), tuple(hypothesis.timestamps)
