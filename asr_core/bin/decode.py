"""Decode test sets with a trained model and score the transcripts. A recipe's decode.py calls :func:`main`."""

import logging
from typing import Any, Callable, Mapping, Optional, Sequence, Type

from asr_core.cli import decoding_arguments as shared
from asr_core.cli.program import run_program
from asr_core.decoding.output.collector import ResultCollector, add_result_options, checked_details
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params


def decode(
    corpus_class: Type[Any],
    params: AttributeDict,
    fallback_tokenizer: str = "",
    usual: Optional[Mapping[str, Any]] = None,
) -> None:
    """Decode and score as ``params`` say.

    Args:
      corpus_class: a subclass of :class:`~asr_core.data.corpus.Corpus`.
      params: all options.
      fallback_tokenizer: where the corpus keeps its tokenizer, if the experiment's folder has none.
      usual: the program's own defaults of options.
    """
    from pathlib import Path

    from asr_core.data.module import AsrDataModule
    from asr_core.decoding.offline import decode_batches
    from asr_core.decoding.options import SearchOptions
    from asr_core.decoding.output.file_names import offline_files
    from asr_core.decoding.output.records import RecordFormatter
    from asr_core.decoding.registry import get_method, resolve_method
    from asr_core.decoding.resources import load_resources
    from asr_core.encoders.chunk_options import WHOLE_UTTERANCE, chunk_and_left
    from asr_core.lm.options import LmOptions
    from asr_core.utils.log import setup_logger
    from asr_core.utils.runtime import setup_cpu

    setup_logger()
    opts, lm_opts = from_params(shared.TestOptions, params), from_params(LmOptions, params)
    search = resolve_method(
        from_params(SearchOptions, params), from_params(SearchOptions, usual or {}), lm_opts
    )
    scoring, details = checked_details(params, search.decoding_method)
    corpus = corpus_class(params)
    test_sets = shared.chosen_test_sets(corpus, opts)
    setup_cpu(opts.num_threads)
    model, trained = shared.load_checkpoint_model(params)
    shared.check_head(model, search.decoding_method)
    tokenizer = shared.find_tokenizer(opts.bpe_model, Path(params.exp_dir), fallback=fallback_tokenizer)
    shared.check_vocabulary(tokenizer, model.vocab_size)
    causal = bool(trained.get("causal", False))
    chunk, left = chunk_and_left(params, {}, default=WHOLE_UTTERANCE) if causal else WHOLE_UTTERANCE
    data_opts = shared.data_options(params, trained)
    if causal:
        shared.fix_chunk(model, chunk, left, data_opts.num_mel_bins)
    elif any(name in params for name in shared.CHUNK_OPTIONS):
        logging.info("the model is not causal: --chunk-size and --left-context-frames have no effect")
    context_size = getattr(model.decoder, "context_size", 0) if model.use_transducer else 0
    files = offline_files(params, search, context_size, causal, chunk, left)
    setup_logger(files.folder / files.log_name(files.recogs))
    logging.info("Options: %s", {name: params[name] for name in sorted(params)})
    device = shared.pick_device(opts.device)
    model.to(device)
    resources = load_resources(get_method(search).needs, search, lm_opts, tokenizer, device)
    data = AsrDataModule(data_opts)
    describer = RecordFormatter.make(
        model, tokenizer, details, search.decoding_method, chunk, Path(params.exp_dir)
    )
    outcome = ResultCollector(corpus, tokenizer, files, opts, scoring, describer)
    for name, cuts in test_sets.items():
        prepare = _encoding(model, search, (causal, chunk), resources, corpus, tokenizer)
        batches = decode_batches(data.test_dataloader(cuts), prepare, device, details)
        decoded = list(shared.progress(batches, sum(cut.duration for cut in cuts), name))
        outcome.add(name, decoded, sum(d.compute_seconds for d in decoded))
    outcome.report(
        files.key
        + (f", chunk {chunk}, left context {left}" if causal and chunk > 0 else ", whole utterances")
    )


def _encoding(model: Any, opts: Any, chunking: Any, resources: Any, corpus: Any, tokenizer: Any) -> Any:
    """A function (features, lengths, transcripts) -> a job to search."""
    from asr_core.decoding.offline import encode
    from asr_core.decoding.registry import get_method

    needs = get_method(opts).needs

    def prepare(x: Any, x_lens: Any, texts: Any) -> Any:
        references = None
        if "references" in needs:
            references = tokenizer.encode([corpus.normalize(text) for text in texts])
        elif "word_references" in needs:
            references = [corpus.normalize(text).split() for text in texts]
        return encode(model, x, x_lens, opts, *chunking, resources, references)

    return prepare


def main(
    corpus: Type[Any],
    defaults: Optional[Mapping[str, Any]] = None,
    argv: Optional[Sequence[str]] = None,
    more_options: Callable[[Parser], None] = lambda parser: None,
) -> None:
    """Parse the command line and run.

    Args:
      corpus: the recipe's corpus class.
      defaults: defaults of the recipe's options, by name; they go before the corpus' own.
      argv: the command line, by default this process'.
      more_options: adds options to the parser that the program has besides.
    """
    from asr_core.decoding.options import SearchOptions
    from asr_core.lm.options import LmOptions
    from asr_core.models.checkpoint_options import CheckpointOptions

    all_defaults = {**corpus.defaults, **(defaults or {})}
    fallback = all_defaults.pop("bpe_model", "")
    parser = Parser(__doc__.split(". ")[0] + ".")
    for cls in (CheckpointOptions, SearchOptions, LmOptions, shared.TestOptions):
        add_options(parser, cls, all_defaults)
    add_result_options(parser, all_defaults)
    shared.add_data_options(parser, all_defaults)
    shared.add_model_options(parser, all_defaults, argv)
    more_options(parser)
    params = shared.parse(parser, corpus, argv)
    run_program(lambda: decode(corpus, params, fallback, all_defaults))
