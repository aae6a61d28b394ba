"""Checks and statistics of cut manifests and Shar folders."""

import logging
import math
from array import array
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterable, List, Optional, Sequence, Set

import numpy as np
from lhotse import CutSet

from asr_core.data.cut_audio import load_samples
from asr_core.data.cut_refs import CutRef, files_of_ref, load_cut, name_of
from asr_core.data.cut_rules import DUPLICATE
from asr_core.data.cut_summary import CutSummary, text_of
from asr_core.data.filter import CutFilter, DropReport
from asr_core.data.manifest import iterate_cuts
from asr_core.data.open_cuts import open_manifest, open_shar
from asr_core.data.options import DataOptions
from asr_core.data.patience import patiently, sources_of
from asr_core.data.read_errors import short_reason
from asr_core.data.stream import open_stream
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    from lhotse.cut import Cut


class _AnyUse(CutFilter):
    """Filter of cuts that no training and no decoding can use, whatever the model and its options.

    Attributes:
      number: of the cuts that it has seen.
    """

    number = 0

    def count_tokens(self, cuts: Sequence[CutSummary]) -> List[Optional[int]]:
        """See :class:`~asr_core.data.filter.CutFilter`."""
        self.number += len(cuts)
        if self.opts.num_mel_bins == 0:  # what the first cut has, all must have
            self.opts.num_mel_bins = next((cut.num_features for cut in cuts if cut.num_features), 0)
        return super().count_tokens(cuts)

    @property
    def stored(self) -> bool:
        """Whether the size of features matters."""
        return self.opts.num_mel_bins > 0

    def encoder_frames(self, cut: CutSummary) -> int:
        """Return a number that is enough: encoders differ in how short a cut may be."""
        return 1


@dataclass
class CheckOptions:
    """What a check of cuts asks for.

    Attributes:
      read_data: read their features or audio.
      keep_empty: accept cuts without words.
      join_supervisions: accept several supervisions that do not overlap.
      allow_commands: whether cuts may run programs when they are read.
    """

    read_data: bool = False
    keep_empty: bool = False
    join_supervisions: bool = False
    allow_commands: bool = False


@dataclass
class Checked:
    """The result of a check.

    Attributes:
      number: of the cuts.
      problems: the ids of the cuts that have a problem, by problem.
    """

    number: int
    problems: Dict[str, List[str]]


def check_cuts(cuts: CutSet, opts: CheckOptions) -> Checked:
    """Return which cuts neither training nor decoding would use, and why.

    They are found by the rules that training goes by, but no cut is too short or too long.

    Raises:
      UserError: the manifest is missing or damaged.
    """
    limits = DataOptions(
        min_duration=0.0,
        max_utt_duration=math.inf,
        num_mel_bins=0,
        empty_text="keep" if opts.keep_empty else "drop",
        join_supervisions=opts.join_supervisions,
        allow_commands=opts.allow_commands,
    )
    keep = _AnyUse(limits, None, DropReport())
    stream = open_stream(cuts, keep)
    for _, ref in stream.items():
        problem = _unreadable(ref) if opts.read_data else ""
        if problem:
            keep.report.add(name_of(ref), problem)
    return Checked(keep.number + len(keep.report.ids.get(DUPLICATE, [])), keep.report.ids)


def _unreadable(ref: CutRef) -> str:
    """Return why the data of a cut cannot be read, or ""."""
    try:
        cut = patiently(partial(load_cut, ref), partial(files_of_ref, ref))
        data = patiently(partial(_data_of, cut), partial(sources_of, cut, cut.has_features))
    except Exception as e:  # the readers raise many kinds
        return short_reason(e)
    rows, expected = (len(data), cut.num_frames) if cut.has_features else (data.shape[1], cut.num_samples)
    return "" if abs(rows - expected) <= 1 else f"{rows} rows of data where {expected} are expected"


def _data_of(cut: "Cut") -> np.ndarray:
    """Read features (T, C), or audio (1, num_samples) without."""
    return cut.load_features() if cut.has_features else load_samples(cut)[None]


def describe_cuts(cuts: Iterable["Cut"], tokenizer: Optional[Tokenizer] = None) -> str:
    """Return a table of statistics: amounts, durations, words, and tokens if a tokenizer is given.

    Raises:
      UserError: there are no cuts.
    """
    durations, texts, features = array("d"), [], 0
    rates: Set[int] = set()
    speakers: Set[str] = set()
    for cut in cuts:
        durations.append(cut.duration)
        rates.add(cut.sampling_rate)
        features += cut.has_features
        texts.append(text_of(cut))
        speakers.update(s.speaker for s in cut.supervisions if s.speaker)
    if not durations:
        raise UserError("no cuts in the manifest")
    words = Counter(word for text in texts for word in text.split())
    rows = [
        ("cuts", f"{len(durations)}"),
        ("hours", f"{sum(durations) / 3600:.3f}"),
        ("sampling rates", ", ".join(map(str, sorted(rates)))),
        ("with features", f"{features}"),
        ("speakers", f"{len(speakers) or 'not given'}"),
        ("words", f"{sum(words.values())}, {len(words)} different"),
        ("duration, s", _spread(durations)),
        ("words a cut", _spread([len(text.split()) for text in texts])),
    ]
    if tokenizer is not None:
        lengths = [len(ids) for ids in tokenizer.encode(texts)]
        rows.append(("tokens a cut", _spread(lengths)))
        unknown = "".join(dict.fromkeys("".join(tokenizer.unknown_characters(t) for t in texts)))
        rows.append(("unknown characters", unknown or "none"))
    return "\n".join(f"{name:<20}{value}" for name, value in rows)


def _spread(values: Sequence[float]) -> str:
    low, p5, p50, p95, high = np.percentile(values, [0, 5, 50, 95, 100])
    percentiles = f"min {low:.2f}, 5 % {p5:.2f}, median {p50:.2f}, 95 % {p95:.2f}, max {high:.2f}"
    return f"mean {np.mean(values):.2f}, {percentiles}"


def describe_manifests(
    paths: Sequence[PathLike], bpe_model: PathLike = "", allow_commands: bool = False
) -> None:
    """Print the statistics of manifests; count the tokens of ``bpe_model``, too, if it is given.

    Raises:
      UserError: a manifest is missing, damaged or empty.
    """
    tokenizer = Tokenizer.load(bpe_model) if bpe_model else None
    for path in paths:
        print(f"{path}\n{describe_cuts(iterate_cuts(path, allow_commands), tokenizer)}\n", flush=True)


def validate_manifests(
    paths: Sequence[PathLike], opts: CheckOptions = CheckOptions(), bpe_model: PathLike = ""
) -> None:
    """Check manifests and Shar folders, and log their problems.

    With ``bpe_model``, print the statistics of good ones.

    Raises:
      UserError: one is missing, damaged or empty, or has problems.
    """
    for path in paths:
        _validate(Path(path), opts)
        if bpe_model:
            describe_manifests([path], bpe_model, opts.allow_commands)


def _validate(path: Path, opts: CheckOptions) -> None:
    checked = check_cuts(_open(path, opts.allow_commands), opts)
    for problem, ids in checked.problems.items():
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        logging.error("%s: %d cuts: %s (%s)", path, len(ids), problem, shown)
    if checked.problems:
        unfit = sum(map(len, checked.problems.values()))
        raise UserError(f"{path}: {unfit} of {checked.number} cuts are unfit, see above")
    if checked.number == 0:
        raise UserError(f"{path}: no cuts")
    logging.info("%s: %d cuts are fine", path, checked.number)


def _open(path: Path, allow_commands: bool) -> CutSet:
    if path.is_dir():
        return open_shar(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return open_manifest(path)
    return CutSet.from_cuts(iterate_cuts(path, allow_commands))
