"""Decoding whole test sets: batches through encoder and search."""

import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.confidence import with_confidences
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.options import DetailOptions
from asr_core.decoding.padding import pad_for_encoder, searched_frames
from asr_core.decoding.registry import Job, get_method
from asr_core.decoding.resources import Resources


class Audio(NamedTuple):
    """Where the sound of an utterance is: a file, and the seconds in it."""

    path: str
    start: float
    duration: float
    channel: int = 0


class Decoded(NamedTuple):
    """One utterance of a test set.

    Attributes:
      cut_id: its cut's id.
      text: its transcript in the corpus' manifest.
      hypotheses: what was recognised, by the name of the result ("" where the method has one).
      audio_seconds: its duration.
      compute_seconds: its share of the time that its batch took in encoder and search.
      speaker: who spoke, "" if the manifest does not tell.
      audio: where it can be listened to; None where there is no file.
      nbest: the best hypotheses, if they were asked for.
    """

    cut_id: str
    text: str
    hypotheses: Dict[str, Hypothesis]
    audio_seconds: float
    compute_seconds: float
    speaker: str = ""
    audio: Optional[Audio] = None
    nbest: Sequence[Hypothesis] = ()

    @staticmethod
    def of_cut(
        cut: Any, hypotheses: Dict[str, Hypothesis], compute_seconds: float, nbest: Sequence[Hypothesis] = ()
    ) -> "Decoded":
        """What was recognised in a lhotse cut."""
        speaker = (cut.supervisions[0].speaker or "") if cut.supervisions else ""
        return Decoded(
            cut.id,
            transcript_of(cut),
            hypotheses,
            cut.duration,
            compute_seconds,
            speaker,
            _audio_of(cut),
            nbest,
        )


def transcript_of(cut: Any) -> str:
    """The transcript of a cut, "" if it has none."""
    return (cut.supervisions[0].text or "") if cut.supervisions else ""


def _audio_of(cut: Any) -> Optional[Audio]:
    """The file of a cut; None if it has none, or other sound than the file (another speed, noise added)."""
    recording = getattr(cut, "recording", None)
    if (
        recording is None
        or recording.transforms
        or len(recording.sources) != 1
        or recording.sources[0].type != "file"
    ):
        return None
    channel = cut.channel if isinstance(cut.channel, int) else cut.channel[0]
    return Audio(str(recording.sources[0].source), cut.start, cut.duration, channel)


@torch.inference_mode()
def encode(
    model: Any,
    x: Tensor,
    x_lens: Tensor,
    opts: SearchOptions,
    causal: bool,
    chunk_size: int = -1,
    resources: Resources = Resources(),
    references: Optional[Sequence[Sequence[int]]] = None,
) -> Job:
    """Encode a batch of features; returns it ready to be searched.

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
    return Job(model, encoder_out, encoder_out_lens.to(torch.int64), opts, resources, references)


@torch.inference_mode()
def search(job: Job) -> Dict[str, List[Hypothesis]]:
    """What the method that ``job.opts`` name finds in a batch, by name of the result."""
    return get_method(job.opts).search(job)


def recognize(
    model: Any, x: Tensor, x_lens: Tensor, opts: SearchOptions, causal: bool, chunk_size: int = -1
) -> List[Hypothesis]:
    """The hypotheses of a method of one answer that needs nothing but the model; arguments as of :func:`encode`."""
    return search(encode(model, x, x_lens, opts, causal, chunk_size))[""]


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
    batches: Iterable[Dict[str, Any]],
    prepare: Callable[[Tensor, Tensor, List[str]], Job],
    device: Any,
    details: DetailOptions = DetailOptions(),
) -> Iterator[Decoded]:
    """Decode the batches of a test loader.

    Args:
      batches: of :meth:`~asr_core.data.module.AsrDataModule.test_dataloader`, of features.
      prepare: (x (N, T, C), x_lens (N,), transcripts) -> a job, see :func:`encode`.
      device: where the model is.
      details: what is wanted besides; it is made after the search, and its time is not counted.
    """
    for batch in batches:
        cuts, features = zip(*supervised_frames(batch))
        x, x_lens = collate(list(features))
        begin = time.perf_counter()
        job = prepare(x.to(device), x_lens.to(device), [transcript_of(cut) for cut in cuts])
        results = search(job)
        spent = time.perf_counter() - begin
        lists = _nbest(job, details.write_nbest) if details.write_nbest else [[]] * len(cuts)
        if details.write_confidence:
            results, lists = _confident(job, results, lists, details)
        total = sum(cut.duration for cut in cuts)
        for i, cut in enumerate(cuts):
            found = {key: hypotheses[i] for key, hypotheses in results.items()}
            yield Decoded.of_cut(cut, found, spent * cut.duration / total, lists[i])


@torch.inference_mode()
def _nbest(job: Job, most: int) -> List[List[Hypothesis]]:
    method = get_method(job.opts)
    if method.nbest is None:
        raise ValueError(f"{job.opts.decoding_method} has no n-best list")
    return [hypotheses[:most] for hypotheses in method.nbest(job)]


def _confident(
    job: Job, results: Dict[str, List[Hypothesis]], lists: List[List[Hypothesis]], details: DetailOptions
) -> Tuple[Dict[str, List[Hypothesis]], List[List[Hypothesis]]]:
    """The same with confidences; a hypothesis that comes more than once is looked at once."""
    rows: Dict[Any, int] = {}
    each: List[Tuple[int, Hypothesis]] = []
    for i in range(job.encoder_out.size(0)):
        for hyp in (*(hypotheses[i] for hypotheses in results.values()), *lists[i]):
            if rows.setdefault(_identity(i, hyp), len(each)) == len(each):
                each.append((i, hyp))
    done = with_confidences(job, [i for i, _ in each], [hyp for _, hyp in each], details)

    def of(i: int, hyp: Hypothesis) -> Hypothesis:
        return hyp._replace(confidences=done[rows[_identity(i, hyp)]].confidences)

    by_name = {key: [of(i, hyp) for i, hyp in enumerate(hypotheses)] for key, hypotheses in results.items()}
    return by_name, [[of(i, hyp) for hyp in hypotheses] for i, hypotheses in enumerate(lists)]


def _identity(i: int, hyp: Hypothesis) -> Tuple[int, Tuple[int, ...], Tuple[int, ...]]:
    return i, tuple(hyp.tokens), tuple(hyp.timestamps)
