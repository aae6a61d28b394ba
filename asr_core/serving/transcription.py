"""Transcription of recordings with a trained or exported model."""

import dataclasses
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple, cast

import torch
from torch import Tensor

from asr_core.data.audio import duration_of, load_audio
from asr_core.data.device_features import FeatureForm, features_on
from asr_core.data.features import FeatureStream, extract_features
from asr_core.decoding.confidence import ConfidentSearch, with_confidences
from asr_core.decoding.device.queue import EncoderQueue, behind
from asr_core.decoding.encoding import collate
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import BEST, Job
from asr_core.decoding.model_loading import model_overrides
from asr_core.decoding.offline import encode, search
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.calibration import kind_of, load_calibrations
from asr_core.decoding.output.options import ConfidenceOptions
from asr_core.decoding.output.records import RecordFormatter
from asr_core.decoding.output.speed import Speed
from asr_core.decoding.precision import set_precision
from asr_core.decoding.protocol import RecognitionModel
from asr_core.decoding.registry import check_head, get_method, streaming_search
from asr_core.decoding.segmentation import FRAMES_PER_SECOND, Piece, batches_of, pieces_of
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.encoders.chunk_options import CHUNK_OPTIONS, Chunk
from asr_core.export.loading import InferenceModel, describe_scripted, load_for_inference
from asr_core.export.traced import load_traced
from asr_core.serving.options import TracedModelOptions, TranscribeOptions
from asr_core.serving.transcript import Transcript, format_transcript
from asr_core.utils.device import pick_device
from asr_core.utils.errors import UserError
from asr_core.utils.log import setup_logger
from asr_core.utils.options import from_params
from asr_core.utils.runtime import setup_cpu

_BATCHES_IN_MEMORY = 10  # audio of this many batches is read at a time
_NUM_STREAMS = 50  # decoded together with a streaming model
_OF_FEATURES = ("sample_rate", "feature_type")

# (what the user gave of the model, its chunks and features; device) -> the model
LoadModel = Callable[[Mapping[str, object], torch.device], InferenceModel]


class Transcriber:
    """Recognises speech in recordings with one model.

    Args:
      loaded: the model.
      opts: options of the search.
      device: device of the model.

    Raises:
      UserError: the method cannot be used with this model, or needs more than a model.

    Attributes:
      audio_seconds: duration of what has been transcribed.
      compute_seconds: time that encoder and search took.
    """

    def __init__(self, loaded: InferenceModel, opts: TranscribeOptions, device: torch.device) -> None:
        self.loaded = loaded
        # to the type checker, the heads of an AsrModel are modules of any kind
        self._model = cast(RecognitionModel, loaded.model)
        self._opts = opts
        self._device = device
        self._search = search_options(opts)
        self.audio_seconds = self.compute_seconds = 0.0
        check_head(loaded.model, get_method(self._search.decoding_method))
        kind = kind_of(self._search.decoding_method, loaded.chunk_size, ConfidenceOptions())
        folder = Path(opts.model).parent
        self._formatter = RecordFormatter(
            loaded.tokenizer,
            loaded.frame_seconds,
            kind=kind,
            calibration=load_calibrations(folder).get(kind) if opts.confidence else None,
        )

    def transcribe(self, recordings: Mapping[str, Tensor]) -> Dict[str, Transcript]:
        """Transcribe recordings.

        Args:
          recordings: samples (T,) in [-1, 1] at the model's sampling rate, by name.

        Returns:
          The transcripts by name.
        """
        seconds = {name: len(samples) / self.loaded.sample_rate for name, samples in recordings.items()}
        features = [self._features(samples) for samples in recordings.values()]
        transcripts = {name: Transcript(name, duration=round(t, 3)) for name, t in seconds.items()}
        recognize = self._recognize_streams if self.loaded.streaming else self._recognize_pieces
        names = list(recordings)
        begin = time.perf_counter()
        found = sorted(recognize(features), key=lambda item: item[0])  # pieces in their order in time
        self.compute_seconds += time.perf_counter() - begin
        self.audio_seconds += sum(seconds.values())
        for piece, hypothesis in found:
            name, offset = names[piece.row], piece.first / FRAMES_PER_SECOND
            last = piece.end == len(features[piece.row])
            end = seconds[name] if last else piece.end / FRAMES_PER_SECOND
            transcripts[name].add(self._formatter.hypothesis(hypothesis, end - offset, offset))
        return transcripts

    def _features(self, samples: Tensor) -> Tensor:
        """Return the features (T, F) of samples; a streaming model gets them second by second."""
        loaded = self.loaded
        if self._opts.features_on_device:
            form = FeatureForm(loaded.sample_rate, loaded.feature_dim, loaded.feature_type)
            return features_on(samples, form, self._device)
        if not loaded.streaming:
            return extract_features(samples, loaded.sample_rate, loaded.feature_dim, loaded.feature_type)
        stream = FeatureStream(loaded.sample_rate, loaded.feature_dim, loaded.feature_type)
        parts = [stream.accept(second) for second in samples.split(loaded.sample_rate)]
        return torch.cat([*parts, stream.finish()])

    def _recognize_streams(self, features: Sequence[Tensor]) -> Iterator[Tuple[Piece, Hypothesis]]:
        """Yield each recording and its hypothesis, in any order."""
        searching = streaming_search(self._model, self._search)
        if self._opts.confidence:
            searching = ConfidentSearch(searching, self._model, self._search, ConfidenceOptions())
        batch: StreamBatch[Piece] = StreamBatch(
            self.loaded.model, searching, self.loaded.chunk_size, self._device
        )
        whole = ((Piece(row, 0, len(f)), f) for row, f in enumerate(features))
        yield from decode_streams(batch, whole, num_streams=_NUM_STREAMS)

    def _recognize_pieces(self, features: Sequence[Tensor]) -> Iterator[Tuple[Piece, Hypothesis]]:
        """Yield each piece of each recording and its hypothesis, long ones first."""
        pieces = pieces_of(features, self._opts.max_segment)
        encoder = EncoderQueue(self._device)

        def encoded(batch: List[Piece]) -> Tuple[List[Piece], Job]:
            with encoder.queued():
                return batch, self._encode([features[p.row][p.first : p.end] for p in batch])

        batches = batches_of(pieces, self._opts.max_duration)
        for batch, job in behind(map(encoded, batches), encoder.ahead):
            encoder.wait_for(job.encoder_out, job.lens)
            yield from zip(batch, self._answers(job))

    def _encode(self, features: Sequence[Tensor]) -> Job:
        """Encode a batch of features (T, F)."""
        chunk = Chunk(self.loaded.chunk_size, -1) if self.loaded.causal else None
        return encode(self._model, *collate(features), self._search, chunk=chunk, device=self._device)

    def _answers(self, job: Job) -> List[Hypothesis]:
        """Return the hypothesis of each utterance of a batch."""
        answers = [hypotheses[0] for hypotheses in search(job)[BEST]]
        if not self._opts.confidence:
            return answers
        return with_confidences(job, range(len(answers)), answers, ConfidenceOptions())


def search_options(opts: TranscribeOptions) -> SearchOptions:
    """Return the options of the search.

    Raises:
      UserError: the method is unknown, or needs more than a model.
    """
    search = dataclasses.replace(from_params(SearchOptions, vars(opts)), decoding_method=opts.method)
    method = get_method(opts.method)
    if method.needs or method.references or method.attention_decoder:
        raise UserError(f"--method {opts.method} needs more than a model: use decode.py")
    return search


def transcribe_files(
    params: Mapping[str, object], paths: Sequence[str], load: Optional[LoadModel] = None
) -> int:
    """Transcribe audio files and print what was recognised.

    Args:
      params: all options by name.
      paths: the files.
      load: makes the model; by default it is loaded from ``--model``.

    Returns:
      How many files could not be read.

    Raises:
      UserError: the options make no sense, or there is no such model.
    """
    opts = from_params(TranscribeOptions, params)
    if not (opts.model or load):
        raise UserError("no model: give its file with --model")
    setup_logger()
    search_options(opts)  # a mistake is reported before the model is loaded
    setup_cpu(opts.num_threads)
    device = pick_device(opts.device)
    given = model_overrides(params)
    given.update({name: params[name] for name in (*CHUNK_OPTIONS, *_OF_FEATURES) if name in params})
    if load:
        loaded = load(given, device)
    else:
        trust, use_ema = opts.trust_model, opts.use_ema
        loaded = load_for_inference(opts.model, opts.tokens, given, str(device), trust, use_ema)
    set_precision(loaded.model, opts.dtype, device)
    transcriber = Transcriber(loaded, opts, device)
    begin, failed = time.perf_counter(), 0
    groups = _groups(paths, _BATCHES_IN_MEMORY * opts.max_duration)
    for group, recordings in _read_ahead(groups, loaded.sample_rate, opts.channel):
        transcripts = transcriber.transcribe(recordings)
        for path in group:
            if path in transcripts:
                print(format_transcript(transcripts[path], opts), flush=True)
        failed += sum(path not in transcripts for path in group)
    audio, compute = transcriber.audio_seconds, transcriber.compute_seconds
    logging.info("%s", Speed(audio, compute, time.perf_counter() - begin))
    return failed


def transcribe_files_traced(params: Mapping[str, object], paths: Sequence[str]) -> int:
    """Transcribe audio files with a traced model in three files; see :func:`transcribe_files`."""
    opts = from_params(TracedModelOptions, params)
    files = {
        "encoder": opts.encoder_model_filename,
        "decoder": opts.decoder_model_filename,
        "joiner": opts.joiner_model_filename,
    }

    def load(given: Mapping[str, object], device: torch.device) -> InferenceModel:
        for part, path in files.items():
            if not path:
                raise UserError(f"no {part}: give its file with --{part}-model-filename")
        trust = from_params(TranscribeOptions, params).trust_model
        model = load_traced(files["encoder"], files["decoder"], files["joiner"], str(device), trust)
        return describe_scripted(model, files["encoder"], str(params.get("tokens", "")), given)

    return transcribe_files(params, paths, load)


def _groups(paths: Sequence[str], seconds: float) -> Iterator[List[str]]:
    """Yield files in groups of about ``seconds`` of audio, which are held in memory together."""
    group: List[str] = []
    total = 0.0
    for path in paths:
        group.append(path)
        total += duration_of(path)
        if total >= seconds:
            yield group
            group, total = [], 0.0
    if group:
        yield group


def _read_ahead(
    groups: Iterable[List[str]], sample_rate: int, channel: str
) -> Iterator[Tuple[List[str], Dict[str, Tensor]]]:
    """Yield groups of files and their samples; the next group is read while one is in use."""
    with ThreadPoolExecutor(1) as pool:
        reading = ((group, pool.submit(_read, group, sample_rate, channel)) for group in groups)
        for group, samples in behind(reading, 1):
            yield group, samples.result()


def _read(paths: Sequence[str], sample_rate: int, channel: str) -> Dict[str, Tensor]:
    """Return the samples of files; print a line on stderr for each that cannot be read."""
    recordings: Dict[str, Tensor] = {}
    for path in dict.fromkeys(paths):
        try:
            recordings[path] = load_audio(path, sample_rate, channel)
        except UserError as e:
            print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
    return recordings
