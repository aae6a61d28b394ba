"""Decoding of test sets chunk by chunk, many streams at a time."""

import logging
import time
from typing import TYPE_CHECKING, Iterable, Iterator, List, Mapping, Tuple, Type, cast

import torch
from torch import Tensor

from asr_core.data.batch import Batch
from asr_core.data.corpus import Corpus
from asr_core.decoding.confidence import ConfidentSearch
from asr_core.decoding.encoding import supervised_features
from asr_core.decoding.method import BEST
from asr_core.decoding.options import StreamingSearchOptions
from asr_core.decoding.output.file_names import streaming_files
from asr_core.decoding.output.utterance import Decoded
from asr_core.decoding.protocol import StreamingModel
from asr_core.decoding.registry import check_streaming, get_method, resolve_method, streaming_search
from asr_core.decoding.session import DecodingSession, SessionOptions
from asr_core.decoding.streaming import StreamBatch, decode_streams
from asr_core.utils.log import setup_logger
from asr_core.utils.options import from_params

if TYPE_CHECKING:
    from lhotse.cut import Cut

_LOG_EVERY = 100  # utterances


def streaming_decode(
    corpus_class: Type[Corpus], params: Mapping[str, object], fallback_tokenizer: str = ""
) -> None:
    """Decode test sets as streams and score the transcripts.

    Args and Raises: as of :func:`asr_core.decoding.run_offline.decode`.
    """
    setup_logger()
    opts, streaming = SessionOptions.from_params(params), from_params(StreamingSearchOptions, params)
    search = resolve_method(streaming.search_options(), StreamingSearchOptions().search_options())
    check_streaming(get_method(search.decoding_method))
    session = DecodingSession(
        corpus_class(params), opts, search, fallback_tokenizer=fallback_tokenizer, streaming=True
    )
    chunk = session.chunk
    assert chunk is not None, "a session of streams has one"
    files = streaming_files(
        session.method, search, opts.checkpoint, chunk=chunk, label=streaming.label, dtype=opts.test.dtype
    )
    results = session.open_results(files)
    resources = session.load_resources()
    for name, cuts in session.test_sets.items():
        searching = streaming_search(session.model, search, resources)
        if opts.records.write_confidence:
            searching = ConfidentSearch(searching, session.model, search, opts.records)
        encoder = cast(StreamingModel, session.model)  # a session of streams has refused other models
        streams: StreamBatch["Cut"] = StreamBatch(encoder, searching, chunk.size, session.device)
        with results.accepting_failures(name):
            session.data.survey_test(cuts)
            batches = session.data.test_dataloader(cuts)
            loader = _TimedLoader(batches, session.device)
            start = time.perf_counter()
            decoded = _decode_set(streams, loader, streaming.num_decode_streams, name)
            total = time.perf_counter() - start
            results.add(name, decoded, total - loader.seconds, batches.dropped.total, total)
    results.report(f"{files.key}, streaming with chunk {chunk.size}, left context {chunk.left_context}")


def _decode_set(
    streams: StreamBatch["Cut"], loader: "_TimedLoader", num_streams: int, name: str
) -> List[Decoded]:
    """Decode all utterances of a test set."""
    decoded: List[Decoded] = []
    for cut, hypothesis in decode_streams(streams, loader.utterances(), num_streams):
        decoded.append(Decoded.of_cut(cut, {BEST: hypothesis}))
        if len(decoded) % _LOG_EVERY == 0:
            logging.info("%s: %d utterances done", name, len(decoded))
    return decoded


class _TimedLoader:
    """Utterances of a test loader, and the time that loading takes.

    Args:
      batches: batches of the loader.
      device: where their features are computed, if they have audio.

    Attributes:
      seconds: spent waiting for batches up to now.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self.seconds = 0.0

    def utterances(self) -> Iterator[Tuple["Cut", Tensor]]:
        """Yield (cut, features (T, F)) of each utterance."""
        begin = time.perf_counter()
        for batch in self._batches:
            self.seconds += time.perf_counter() - begin
            yield from zip(batch["supervisions"]["cut"], supervised_features(batch, self._device))
            begin = time.perf_counter()
        self.seconds += time.perf_counter() - begin
