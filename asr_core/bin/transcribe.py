"""Transcribe audio files with a training checkpoint, a pretrained.pt or a TorchScript file."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from asr_core.cli import decoding_arguments as shared
from asr_core.cli.program import run_program
from asr_core.data.options import FEATURE_TYPES
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params, option, params_of

_FRAMES_PER_SECOND = 100
_OF_FEATURES = ("sample_rate", "feature_type")


@dataclasses.dataclass
class TranscribeOptions:
    """Transcribing: with what, how, and what is printed."""

    model: str = option(
        "", "the model's file; its kind is recognised", aliases=("--checkpoint", "--nn-model-filename")
    )
    tokens: str = option(
        "",
        "tokens.txt or bpe.model; left out: what the model's file holds, else what lies beside it",
        aliases=("--bpe-model",),
    )
    method: str = option(
        "greedy_search",
        "greedy_search, modified_beam_search or fast_beam_search",
        aliases=("--decoding-method",),
    )
    beam_size: int = option(4, "hypotheses kept by beam searches")
    beam: float = option(
        4.0, "fast_beam_search drops what is worse than the best by more than this (natural log-probability)"
    )
    max_contexts: int = option(4, "predictor contexts that fast_beam_search keeps per frame")
    max_states: int = option(8, "states that fast_beam_search keeps per frame")
    max_sym_per_frame: int = option(1, "tokens that greedy search may emit at one frame")
    blank_penalty: float = option(
        0.0, "subtracted from the score of blank: above 0 fewer deletions, more insertions"
    )
    sample_rate: int = option(
        16000, "samples per second that the model hears, if its file does not tell; other audio is resampled"
    )
    feature_type: str = option(
        "fbank", "kind of features that the model takes, if its file does not tell", choices=FEATURE_TYPES
    )
    json: bool = option(False, "print a JSON object for each file")
    timestamps: bool = option(False, "print each word with the seconds between which it was said")
    confidence: bool = option(
        False, "tell how far each word can be trusted; a probability if confidence.json lies beside the model"
    )
    max_duration: float = option(120.0, "seconds of audio in a batch")
    max_segment: float = option(30.0, "longer recordings are cut where it is quiet, unless the model streams")
    device: str = option(
        "auto", "where to compute; auto takes CUDA if there is any", choices=("auto", "cpu", "cuda")
    )
    num_threads: int = option(
        0, "CPU threads of tensor operations; 0 takes all cores that this process may use"
    )


@dataclasses.dataclass
class Transcript:
    """What was recognised in one file: its text, tokens with the seconds at which they were emitted, and words with theirs."""

    path: str
    text: str = ""
    duration: float = 0.0
    tokens: List[str] = dataclasses.field(default_factory=list)
    timestamps: List[float] = dataclasses.field(default_factory=list)
    words: List[Dict[str, Any]] = dataclasses.field(default_factory=list)


def transcribe(params: AttributeDict, load: Optional[Callable[[Dict[str, Any], str], Any]] = None) -> int:
    """Transcribe ``params.sound_files``; returns how many could not be read.

    Args:
      params: all options.
      load: (what was given of the model and its chunks, device) -> an :class:`~asr_core.export.loading.InferenceModel`; by default
        that of ``params.model``.
    """
    opts = from_params(TranscribeOptions, params)
    if not (opts.model or load):
        raise UserError("no model: give its file with --model")
    if not (opts.max_duration > 0 and opts.max_segment >= 1):
        raise UserError("--max-duration must be above 0 and --max-segment at least 1")
    from asr_core.decoding.options import SearchOptions
    from asr_core.decoding.registry import get_method
    from asr_core.export.loading import load_for_inference
    from asr_core.utils.log import setup_logger
    from asr_core.utils.runtime import setup_cpu

    setup_logger()
    search = dataclasses.replace(from_params(SearchOptions, opts), decoding_method=opts.method)
    if get_method(search).needs - {"context_graph", "fusion"}:
        raise UserError(f"--method {opts.method} needs more than a model: use decode.py")
    setup_cpu(opts.num_threads)
    device = shared.pick_device(opts.device)
    given = {
        **shared.model_overrides(params),
        **{k: params[k] for k in (*shared.CHUNK_OPTIONS, *_OF_FEATURES) if k in params},
    }
    loaded = load(given, device) if load else load_for_inference(opts.model, opts.tokens, given, device)
    shared.check_head(loaded.model, search.decoding_method)
    failed = 0
    for files in _groups(params.sound_files, 10 * opts.max_duration):
        features, durations = _read(files, loaded, opts)
        transcripts = _recognize(features, durations, loaded, search, opts, device)
        for path in files:
            if path in transcripts:
                print(_format(transcripts[path], opts), flush=True)
        failed += sum(path not in transcripts for path in files)
    return failed


def _groups(paths: Sequence[str], seconds: float) -> Iterator[List[str]]:
    """Files in the given order, so many at a time that about ``seconds`` of audio are held in memory."""
    group: List[str] = []
    total = 0.0
    for path in paths:
        group.append(path)
        total += _duration(path)
        if total >= seconds:
            yield group
            group, total = [], 0.0
    if group:
        yield group


def _duration(path: str) -> float:
    import soundfile

    try:
        return soundfile.info(path).duration
    except (RuntimeError, OSError):
        return 0.0  # reading it will say what is wrong


def _read(
    paths: Sequence[str], loaded: Any, opts: TranscribeOptions
) -> Tuple[Dict[str, Any], Dict[str, float]]:
    """Features (T, C) and durations of the files that can be read; a line on stderr for each other one."""
    from asr_core.data.features import load_audio

    features, durations = {}, {}
    for path in paths:
        if path in features:
            continue
        try:
            samples = load_audio(path, loaded.sample_rate)
        except UserError as e:
            print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
            continue
        durations[path] = len(samples) / loaded.sample_rate
        features[path] = _features(samples, loaded)
    return features, durations


def _features(samples: Any, loaded: Any) -> Any:
    """Features (T, C) of one recording, which a streaming model gets second by second."""
    import torch

    from asr_core.data.features import FeatureStream, extract_features

    form = (loaded.sample_rate, loaded.feature_dim, loaded.feature_type)
    if not loaded.streaming:
        return extract_features(samples, *form)
    stream = FeatureStream(*form)
    return torch.cat(
        [*(stream.accept(second) for second in samples.split(loaded.sample_rate)), stream.finish()]
    )


def _recognize(
    features: Mapping[str, Any],
    durations: Mapping[str, float],
    loaded: Any,
    search: Any,
    opts: Any,
    device: str,
) -> Dict[str, Transcript]:
    """Transcripts by path."""
    from asr_core.decoding.output.calibration import kind_of, load_calibrations
    from asr_core.decoding.output.options import DetailOptions
    from asr_core.decoding.output.records import RecordFormatter

    kind = kind_of(search.decoding_method, loaded.chunk_size, DetailOptions())
    calibration = load_calibrations(Path(opts.model).parent).get(kind) if opts.confidence else None
    describer = RecordFormatter(loaded.tokenizer, loaded.frame_seconds, DetailOptions(), kind, calibration)
    transcripts = {path: Transcript(path, duration=round(durations[path], 3)) for path in features}
    for (path, start), hypothesis in sorted(
        _hypotheses(features, loaded, search, opts, device), key=lambda item: item[0]
    ):
        transcript, offset = transcripts[path], start / _FRAMES_PER_SECOND
        found = describer.hypothesis(hypothesis, durations[path] - offset, offset)
        transcript.text = " ".join(filter(None, (transcript.text, found["text"])))
        for name in ("tokens", "timestamps", "words"):
            getattr(transcript, name).extend(found[name])
    return transcripts


def _hypotheses(
    features: Mapping[str, Any], loaded: Any, search: Any, opts: Any, device: str
) -> Iterator[Tuple[Tuple[str, int], Any]]:
    """((path, first frame), hypothesis) of each piece of each file, in any order."""
    from asr_core.decoding.confidence import ConfidentSearch, with_confidences
    from asr_core.decoding.offline import collate, encode
    from asr_core.decoding.offline import search as search_batch
    from asr_core.decoding.output.options import ConfidenceOptions
    from asr_core.decoding.registry import streaming_search
    from asr_core.decoding.segmentation import split_points
    from asr_core.decoding.streaming import StreamBatch, decode_streams

    most = int(opts.max_duration * _FRAMES_PER_SECOND)
    if loaded.streaming:
        searching = streaming_search(loaded.model, search)
        if opts.confidence:
            searching = ConfidentSearch(searching, loaded.model, search, ConfidenceOptions())
        batch: StreamBatch[Any] = StreamBatch(loaded.model, searching, loaded.chunk_size, device)
        yield from decode_streams(batch, (((path, 0), f) for path, f in features.items()), num_streams=50)
        return
    longest = int(opts.max_segment * _FRAMES_PER_SECOND)
    pieces = [(path, a, b) for path, f in features.items() for a, b in split_points(f, longest)]
    pieces.sort(key=lambda piece: piece[1] - piece[2])
    while pieces:
        count = max(1, most // max(1, pieces[0][2] - pieces[0][1]))
        now, pieces = pieces[:count], pieces[count:]
        x, x_lens = collate([features[path][a:b] for path, a, b in now])
        job = encode(loaded.model, x.to(device), x_lens.to(device), search, loaded.causal, loaded.chunk_size)
        hypotheses = search_batch(job)[""]
        if opts.confidence:
            hypotheses = with_confidences(job, range(len(now)), hypotheses, ConfidenceOptions())
        yield from (((path, a), h) for (path, a, _), h in zip(now, hypotheses))


def _format(transcript: Transcript, opts: TranscribeOptions) -> str:
    if opts.json:
        return json.dumps(dataclasses.asdict(transcript), ensure_ascii=False)
    line = f"{transcript.path}: {transcript.text}"
    if not (opts.timestamps or opts.confidence):
        return line
    for word in transcript.words:
        line += f"\n{word['start']:9.2f} {word['end']:9.2f}" if opts.timestamps else "\n"
        line += f" {word['confidence']:9.2f}" if "confidence" in word else ""
        line += f"  {word['w']}"
    return line


def main(defaults: Optional[Mapping[str, Any]] = None, argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; the exit status is 1 if a file could not be transcribed.

    Args:
      defaults: defaults of the recipe's options, by name.
      argv: the command line, by default this process'.
    """
    parser = Parser(__doc__)
    add_arguments(parser, defaults)
    shared.add_model_options(parser, defaults, argv)
    run(params_of(parser.parse_args(argv)))


def add_arguments(
    parser: Parser, defaults: Optional[Mapping[str, Any]] = None, without: Sequence[str] = ()
) -> None:
    """Add the audio files and :class:`TranscribeOptions`, but for those named in ``without``."""
    parser.add_argument(
        "sound_files",
        nargs="+",
        metavar="FILE",
        help="audio files: wav, flac, mp3, ogg, ...; any rate, the first channel is taken",
    )
    names = {field.name for field in dataclasses.fields(TranscribeOptions)}.difference(without)
    add_options(
        parser,
        TranscribeOptions,
        {**dict.fromkeys(_OF_FEATURES, argparse.SUPPRESS), **(defaults or {})},
        names,
    )


def run(params: AttributeDict, load: Optional[Callable[[Dict[str, Any], str], Any]] = None) -> None:
    """Run :func:`transcribe` as a program."""

    def body() -> None:
        if transcribe(params, load):
            sys.exit(1)

    run_program(body)


if __name__ == "__main__":
    main()
