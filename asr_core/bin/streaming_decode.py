"""Decode test sets chunk by chunk, many streams at a time. A recipe's streaming_decode.py calls :func:`main`."""

import logging
import time
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple, Type

from asr_core.cli import decoding_arguments as shared
from asr_core.cli.program import run_program
from asr_core.decoding.output.collector import ResultCollector, add_result_options, checked_details
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params


def streaming_decode(corpus_class: Type[Any], params: AttributeDict, fallback_tokenizer: str = "") -> None:
    """Decode and score as ``params`` say; arguments as of :func:`asr_core.bin.decode.decode`."""
    from pathlib import Path

    from asr_core.data.module import AsrDataModule
    from asr_core.decoding.confidence import ConfidentSearch
    from asr_core.decoding.options import StreamingSearchOptions
    from asr_core.decoding.output.file_names import streaming_files
    from asr_core.decoding.output.records import RecordFormatter
    from asr_core.decoding.registry import check_streaming, get_method, resolve_method, streaming_search
    from asr_core.decoding.resources import load_resources
    from asr_core.encoders.chunk_options import chunk_and_left
    from asr_core.lm.options import LmOptions
    from asr_core.utils.log import setup_logger
    from asr_core.utils.runtime import setup_cpu

    setup_logger()
    opts, streaming = from_params(shared.TestOptions, params), from_params(StreamingSearchOptions, params)
    if streaming.num_decode_streams < 1:
        raise UserError(f"--num-decode-streams must be at least 1, got {streaming.num_decode_streams}")
    search = resolve_method(streaming.search_options(), StreamingSearchOptions().search_options())
    check_streaming(search)
    scoring, details = checked_details(params, search.decoding_method)
    corpus = corpus_class(params)
    test_sets = shared.chosen_test_sets(corpus, opts)
    setup_cpu(opts.num_threads)
    model, trained = shared.load_checkpoint_model(params)
    shared.check_head(model, search.decoding_method)
    if not trained.get("causal", False):
        raise UserError("the model is not causal, so it cannot stream; train with --causal 1")
    tokenizer = shared.find_tokenizer(opts.bpe_model, Path(params.exp_dir), fallback=fallback_tokenizer)
    shared.check_vocabulary(tokenizer, model.vocab_size)
    chunk, left = chunk_and_left(params, trained, default=None)
    if chunk < 1 or left < 1:
        raise UserError("streaming needs a limited --chunk-size and --left-context-frames")
    data_opts = shared.data_options(params, trained)
    shared.fix_chunk(model, chunk, left, data_opts.num_mel_bins)
    files = streaming_files(params, search, chunk, left)
    setup_logger(files.folder / files.log_name(files.recogs))
    logging.info("Options: %s", {name: params[name] for name in sorted(params)})
    device = shared.pick_device(opts.device)
    model.to(device)
    resources = load_resources(get_method(search).needs, search, LmOptions(), tokenizer, device)
    data = AsrDataModule(data_opts)
    describer = RecordFormatter.make(
        model, tokenizer, details, search.decoding_method, chunk, Path(params.exp_dir)
    )
    outcome = ResultCollector(corpus, tokenizer, files, opts, scoring, describer)
    for name, cuts in test_sets.items():
        searching = streaming_search(model, search, resources)
        if details.write_confidence:
            searching = ConfidentSearch(searching, model, search, details)
        outcome.add(
            name,
            *_decode_set(
                model, data.test_dataloader(cuts), searching, chunk, streaming.num_decode_streams, name
            ),
        )
    outcome.report(f"{files.key}, streaming with chunk {chunk}, left context {left}")


def _decode_set(
    model: Any, loader: Any, search: Any, chunk_size: int, num_streams: int, name: str
) -> Tuple[List[Any], float]:
    """All utterances of a test set, and the seconds it took without loading them."""
    from asr_core.decoding.offline import Decoded, supervised_frames
    from asr_core.decoding.streaming import StreamBatch, decode_streams

    loading = 0.0

    def utterances() -> Iterator[Tuple[Any, Any]]:
        nonlocal loading
        begin = time.perf_counter()
        for batch in loader:
            loading += time.perf_counter() - begin
            yield from supervised_frames(batch)
            begin = time.perf_counter()
        loading += time.perf_counter() - begin

    device = next(model.parameters()).device
    streams: StreamBatch[Any] = StreamBatch(model, search, chunk_size, device)
    decoded: List[Any] = []
    start = time.perf_counter()
    for cut, hypothesis in decode_streams(streams, utterances(), num_streams):
        decoded.append(Decoded.of_cut(cut, {"": hypothesis}, 0.0))
        if len(decoded) % 100 == 0:
            logging.info("%s: %d utterances done", name, len(decoded))
    return decoded, time.perf_counter() - start - loading


def main(
    corpus: Type[Any], defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None
) -> None:
    """Parse the command line and run; arguments as of :func:`asr_core.bin.decode.main`."""
    from asr_core.decoding.options import StreamingSearchOptions
    from asr_core.models.checkpoint_options import CheckpointOptions

    all_defaults = {"epoch": 28, **corpus.defaults, **(defaults or {})}
    fallback = all_defaults.pop("bpe_model", "")
    parser = Parser(__doc__.split(". ")[0] + ".")
    for cls in (CheckpointOptions, StreamingSearchOptions, shared.TestOptions):
        add_options(parser, cls, all_defaults)
    add_result_options(parser, all_defaults, streaming=True)
    shared.add_data_options(parser, all_defaults)
    shared.add_model_options(parser, all_defaults, argv)
    params = shared.parse(parser, corpus, argv)
    run_program(lambda: streaming_decode(corpus, params, fallback))
