"""The set-up that decoding whole utterances and decoding streams have in common."""

import dataclasses
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, Mapping, Optional, cast

import torch

from asr_core.data.corpus import Corpus
from asr_core.data.module import AsrDataModule
from asr_core.data.options import DataOptions
from asr_core.decoding.model_loading import (
    load_checkpoint_model,
    model_overrides,
    model_tokenizer,
)
from asr_core.decoding.options import SearchOptions, TestOptions
from asr_core.decoding.output.collector import ResultCollector
from asr_core.decoding.output.file_names import ResultFiles
from asr_core.decoding.output.options import RecordOptions, ScoreOptions, check_record_options
from asr_core.decoding.output.records import RecordFormatter
from asr_core.decoding.output.utterance import Decoded
from asr_core.decoding.precision import set_precision
from asr_core.decoding.protocol import RecognitionModel
from asr_core.decoding.registry import check_head, check_nbest, get_method
from asr_core.decoding.resource_loading import load_resources
from asr_core.decoding.resources import Resources
from asr_core.encoders.chunk_options import CHUNK_OPTIONS, WHOLE_UTTERANCE, Chunk, chunk_and_left
from asr_core.lm.options import LmOptions
from asr_core.models.asr_model import AsrModel
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.text.normalize import check_normalization
from asr_core.utils.console import outlive_output
from asr_core.utils.device import pick_device
from asr_core.utils.errors import UserError
from asr_core.utils.log import setup_logger
from asr_core.utils.options import flag, from_params
from asr_core.utils.runtime import setup_cpu

if TYPE_CHECKING:
    from lhotse import CutSet

_FEATURES = ("sample_rate", "num_mel_bins", "feature_type")
_TRIAL_CHUNK = 64  # 50-Hz frames that an encoder with unlimited chunks is tried with


@dataclass(frozen=True)
class SessionOptions:
    """The options of a decoding session.

    Attributes:
      checkpoint, test, scoring, records, data: see their classes.
      model: model options that the user gave.
      chunk: chunk options that the user gave.
      features: the form of the features, where the user gave it.
      record: all options by name, for the log.
    """

    checkpoint: CheckpointOptions
    test: TestOptions
    scoring: ScoreOptions
    records: RecordOptions
    data: DataOptions
    model: Mapping[str, object]
    chunk: Mapping[str, object]
    features: Mapping[str, object]
    record: Mapping[str, object]

    @staticmethod
    def from_params(params: Mapping[str, object]) -> "SessionOptions":
        """Read the options from a parsed command line.

        Raises:
          UserError: an option is out of its bounds, or options contradict each other.
        """
        opts = SessionOptions(
            checkpoint=from_params(CheckpointOptions, params),
            test=from_params(TestOptions, params),
            scoring=from_params(ScoreOptions, params),
            records=from_params(RecordOptions, params),
            data=from_params(DataOptions, params),
            model=model_overrides(params),
            chunk={name: params[name] for name in CHUNK_OPTIONS if name in params},
            features={name: params[name] for name in _FEATURES if name in params},
            record=dict(params),
        )
        check_record_options(opts.records, opts.test.skip_scoring)
        check_normalization(opts.scoring.normalize or "none")
        return opts


class DecodingSession:
    """A trained model and everything needed to decode test sets with it.

    Args:
      corpus: corpus of the test sets.
      opts: options of data and weights.
      search: options of the search, with the method's usual name.
      fallback_tokenizer: where the corpus keeps its tokenizer, if the experiment's folder has none.
      streaming: whether streams are decoded, which needs a causal model with limited chunks.

    Attributes:
      method: the decoding method.
      model: in evaluation mode, on ``device``, its chunk set.
      chunk: chunk of a causal model; None for others.
      tokenizer: the model's.
      data: makes batches of the features that the model was trained with.
      test_sets: cuts by name.

    Raises:
      UserError: there is no such model, test set or tokenizer, or they do not go together.
    """

    def __init__(
        self,
        corpus: Corpus,
        opts: SessionOptions,
        search: SearchOptions,
        *,
        fallback_tokenizer: str = "",
        streaming: bool = False,
    ) -> None:
        self.corpus = corpus
        self.opts = opts
        self.search = search
        self.method = get_method(search.decoding_method)
        if opts.records.write_nbest:
            check_nbest(self.method)
        self.test_sets = chosen_test_sets(corpus, opts.test)
        setup_cpu(opts.test.num_threads)
        model, trained = load_checkpoint_model(opts.checkpoint, opts.model)
        check_head(model, self.method)
        self._exp_dir = Path(opts.checkpoint.exp_dir)
        self.tokenizer = model_tokenizer(
            self._exp_dir, model.vocab_size, trained, opts.test.bpe_model, fallback_tokenizer
        )
        self.chunk = (_streaming_chunk if streaming else _offline_chunk)(opts.chunk, trained)
        data_opts = with_trained_features(opts.data, opts.features, trained)
        if self.chunk is not None:
            set_chunk(model, self.chunk, data_opts.num_mel_bins)
        self.device = pick_device(opts.test.device)
        set_precision(model, opts.test.dtype, self.device)
        # to the type checker, the heads of an AsrModel are modules of any kind
        self.model = cast(RecognitionModel, model.to(self.device))
        self.data = AsrDataModule(data_opts)

    @property
    def context_size(self) -> int:
        """Tokens that a stateless predictor sees; 0 without one."""
        return getattr(self.model.decoder, "context_size", 0) if self.model.use_transducer else 0

    def load_resources(self, lm: LmOptions = LmOptions()) -> Resources:
        """Load what the method needs besides the model.

        Args:
          lm: the neural language model, if the method uses one.

        Raises:
          UserError: a file is missing or damaged.
        """
        return load_resources(self.method, self.search, lm, self.tokenizer, self.device)

    def open_results(self, files: ResultFiles) -> ResultCollector:
        """Start the log of the results called ``files``, and return their collector."""
        setup_logger(files.log)
        outlive_output()
        record = self.opts.record
        logging.info("Options: %s", {name: record[name] for name in sorted(record)})
        formatter = RecordFormatter.for_run(
            self.model.geometry,
            self.tokenizer,
            self.opts.records,
            method=self.method.name,
            chunk_size=-1 if self.chunk is None else self.chunk.size,
            folder=self._exp_dir,
        )
        return ResultCollector(
            corpus=self.corpus,
            tokenizer=self.tokenizer,
            files=files,
            test=self.opts.test,
            scoring=self.opts.scoring,
            formatter=formatter,
        )


def _offline_chunk(given: Mapping[str, object], trained: Mapping[str, object]) -> Optional[Chunk]:
    """Return the chunk to decode whole utterances with; None if the model is not causal."""
    if trained.get("causal", False):
        return chunk_and_left(given, {}, default=WHOLE_UTTERANCE)
    if given:
        logging.info("the model is not causal: --chunk-size and --left-context-frames have no effect")
    return None


def _streaming_chunk(given: Mapping[str, object], trained: Mapping[str, object]) -> Chunk:
    """Return the chunk that streams are decoded with.

    Raises:
      UserError: the model is not causal, or the chunk is not limited.
    """
    if not trained.get("causal", False):
        raise UserError("the model is not causal, so it cannot stream; train with --causal 1")
    chunk = chunk_and_left(given, trained, default=None)
    if chunk.size < 1 or chunk.left_context < 1:
        raise UserError("streaming needs a limited --chunk-size and --left-context-frames")
    return chunk


def set_chunk(model: AsrModel, chunk: Chunk, feature_dim: int) -> None:
    """Set the chunk of a causal model, and try it.

    Raises:
      UserError: the encoder cannot work with it.
    """
    model.set_chunk(chunk.size, chunk.left_context)
    size = chunk.size if chunk.size > 0 else _TRIAL_CHUNK
    num_frames = 2 * size + model.geometry.look_ahead
    try:
        with torch.inference_mode():
            model.forward_encoder(torch.zeros(1, num_frames, feature_dim), torch.tensor([num_frames]))
    except ValueError as e:
        raise UserError(f"--chunk-size {chunk.size} --left-context-frames {chunk.left_context}: {e}") from e


def with_trained_features(
    opts: DataOptions, given: Mapping[str, object], trained: Mapping[str, object]
) -> DataOptions:
    """Return ``opts`` with the features that the model was trained with.

    They are computed while loading where batches would hold audio otherwise.

    Args:
      opts: options of the data.
      given: the form of the features, where the user gave it.
      trained: the model's parameters.

    Raises:
      UserError: a given sampling rate, number of filters or kind of features is not the model's.
    """
    form = {
        "sample_rate": trained.get("sample_rate"),
        "feature_type": trained.get("feature_type"),
        "num_mel_bins": trained.get("feature_dim", trained.get("num_mel_bins")),
    }
    known: Dict[str, Any] = {name: value for name, value in form.items() if value is not None}
    for name, value in known.items():
        if name in given and given[name] != value:
            raise UserError(f"{flag(name)} {given[name]}: the model was trained with {value}")
    if opts.strategy == "AudioSamples":
        known.update(on_the_fly_feats=True, input_strategy="OnTheFlyFeatures")
    return dataclasses.replace(opts, **known)


def chosen_test_sets(corpus: Corpus, opts: TestOptions) -> Dict[str, "CutSet"]:
    """Return the test sets to decode, by name.

    They are those of ``--test-sets``, or else those of ``--test-cuts``, or else all of the corpus.

    Raises:
      UserError: there is no test set of that name.
    """
    wanted = [name.strip() for name in opts.test_sets.split(",") if name.strip()]
    sets = corpus.named_manifests(opts.test_cuts, "--test-cuts")
    if wanted or not sets:
        sets = {**corpus.test_sets(), **sets}
    wanted = wanted or list(sets)
    for name in wanted:
        if name not in sets:
            raise UserError(f"no test set {name!r}; there are: {', '.join(sets)}")
    return {name: sets[name] for name in wanted}


def progress(decoded: Iterable[Decoded], total_seconds: float, name: str) -> Iterator[Decoded]:
    """Yield decoded utterances; on a terminal, show a bar of the audio that is done."""
    from tqdm import tqdm

    form = (
        "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}, {rate_fmt}]"
    )
    with tqdm(
        total=total_seconds,
        desc=name,
        unit="s",
        bar_format=form,
        disable=not sys.stderr.isatty(),
        leave=False,
    ) as bar:
        for item in decoded:
            yield item
            bar.update(item.audio_seconds)
