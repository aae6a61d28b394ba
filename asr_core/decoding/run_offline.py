"""Decoding of test sets of whole utterances with a trained model."""

import logging
import time
from typing import Mapping, Optional, Sequence, Type, cast

from torch import nn

from asr_core.data.corpus import Corpus
from asr_core.decoding.method import Transcripts, Unit
from asr_core.decoding.offline import MakeReferences, OfflineDecoder
from asr_core.decoding.options import EncoderOptions, SearchOptions, WindowOptions
from asr_core.decoding.output.file_names import offline_files
from asr_core.decoding.output.utterance import Decoded
from asr_core.decoding.registry import resolve_method
from asr_core.decoding.resource_loading import names_neural_lm
from asr_core.decoding.session import DecodingSession, SessionOptions, progress
from asr_core.decoding.windows import Windows
from asr_core.lm.options import LmOptions
from asr_core.nn.layers import compile_layers
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.log import setup_logger
from asr_core.utils.options import from_params


def decode(
    corpus_class: Type[Corpus],
    params: Mapping[str, object],
    fallback_tokenizer: str = "",
    usual: Optional[Mapping[str, object]] = None,
) -> None:
    """Decode test sets and score the transcripts.

    Args:
      corpus_class: has the test sets.
      params: all options by name.
      fallback_tokenizer: where the corpus keeps its tokenizer, if the experiment's folder has none.
      usual: the program's own defaults, as opposed to options of the user.

    Raises:
      UserError: the options make no sense, or files are missing or damaged.
    """
    setup_logger()
    opts, lm = SessionOptions.from_params(params), from_params(LmOptions, params)
    search = resolve_method(from_params(SearchOptions, params), from_params(SearchOptions, usual or {}), lm)
    session = DecodingSession(corpus_class(params), opts, search, fallback_tokenizer=fallback_tokenizer)
    if from_params(EncoderOptions, params).compile:
        compile_layers(cast(nn.Module, session.model), session.device, training=False)
    files = offline_files(
        session.method,
        search,
        opts.checkpoint,
        chunk=session.chunk,
        context_size=session.context_size,
        neural_lm=names_neural_lm(search, lm),
        dtype=opts.test.dtype,
    )
    results = session.open_results(files)
    decoder = OfflineDecoder(
        model=session.model,
        opts=search,
        chunk=session.chunk,
        resources=session.load_resources(lm),
        references=_references(session.method.references, session.corpus, session.tokenizer),
        windows=Windows(
            max_segment=from_params(WindowOptions, params).max_segment,
            max_duration=opts.data.max_duration,
            words=lambda tokens: session.tokenizer.decode(tokens).split(),
        ),
        records=opts.records,
        device=session.device,
    )
    for name, cuts in session.test_sets.items():
        with results.accepting_failures(name):
            seconds = session.data.survey_test(cuts).seconds
            start = time.perf_counter()
            batches = session.data.test_dataloader(cuts)
            decoded = list(progress(decoder.decode(batches), seconds, name))
            _say_windows(name, [d for d in decoded if d.in_windows], decoder.windows)
            compute = sum(d.compute_seconds for d in decoded)
            results.add(name, decoded, compute, batches.dropped.total, time.perf_counter() - start)
    results.report(f"{files.key}, {_encoder_context(session)}")


def _say_windows(name: str, decoded: Sequence[Decoded], windows: Optional[Windows]) -> None:
    """Log which utterances were decoded piece by piece."""
    if decoded and windows is not None:
        logging.warning(
            "%s: %d utterances longer than --max-segment %g s were decoded in windows: %s",
            name,
            len(decoded),
            windows.max_segment,
            ", ".join(d.cut_id for d in decoded[:3]) + (", ..." if len(decoded) > 3 else ""),
        )


def _encoder_context(session: DecodingSession) -> str:
    """Name the part of an utterance that the encoder sees."""
    if session.chunk is None or session.chunk.size < 1:
        return "whole utterances"
    return f"chunk {session.chunk.size}, left context {session.chunk.left_context}"


def _references(unit: Optional[Unit], corpus: Corpus, tokenizer: Tokenizer) -> Optional[MakeReferences]:
    """Return the function that makes an oracle's references; None for other methods."""

    def make(texts: Sequence[str]) -> Transcripts:
        normalized = [corpus.normalize(text) for text in texts]
        if unit is Unit.TOKENS:
            return Transcripts(tokens=tokenizer.encode(normalized))
        return Transcripts(words=[text.split() for text in normalized])

    return None if unit is None else make
