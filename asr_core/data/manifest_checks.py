"""Checks and statistics of cut manifests."""

import logging
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Dict, Iterable, Iterator, List, Optional, Sequence, Set

import numpy as np

from asr_core.data.cut_audio import load_samples
from asr_core.data.filter import text_of
from asr_core.data.manifest import iterate_cuts
from asr_core.data.read_errors import short_reason
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike

if TYPE_CHECKING:
    from lhotse.cut import Cut

_TOLERANCE = 2e-3  # seconds that a supervision may lie outside its cut: manifests round durations


def problems_of(cut: "Cut", read_data: bool = False, keep_empty: bool = False) -> List[str]:
    """Return what makes ``cut`` unfit for training or decoding.

    With ``read_data`` its features or audio are read, too; with ``keep_empty`` it needs no words.
    """
    found = []
    if len(cut.supervisions) != 1 and (cut.supervisions or not keep_empty):
        found.append(f"{len(cut.supervisions)} supervisions where one is expected")
    for supervision in cut.supervisions:
        if abs(supervision.start) > _TOLERANCE:
            found.append(f"its supervision starts at {supervision.start:g} s")
        if supervision.end > cut.duration + _TOLERANCE:
            found.append(f"its supervision ends {supervision.end - cut.duration:.3f} s after it")
        if not (keep_empty or (supervision.text or "").strip()):
            found.append("no text")
    if cut.duration <= 0:
        found.append(f"duration {cut.duration:g} s")
    if not (cut.has_features or cut.has_recording):
        found.append("neither features nor audio")
    if read_data and not found:
        found += _unreadable(cut)
    return found


def _unreadable(cut: "Cut") -> List[str]:
    try:
        data = cut.load_features() if cut.has_features else load_samples(cut)[None]
    except Exception as e:  # the readers raise many kinds
        return [short_reason(e)]
    rows, expected = (len(data), cut.num_frames) if cut.has_features else (data.shape[1], cut.num_samples)
    return [] if abs(rows - expected) <= 1 else [f"{rows} rows of data where {expected} are expected"]


def validate_cuts(
    cuts: Iterable["Cut"], read_data: bool = False, keep_empty: bool = False
) -> Dict[str, List[str]]:
    """Return the ids of the cuts that have a problem, by problem."""
    found: Dict[str, List[str]] = {}
    seen: Set[str] = set()
    for cut in cuts:
        if cut.id in seen:
            found.setdefault("duplicate id", []).append(cut.id)
        seen.add(cut.id)
        for problem in problems_of(cut, read_data, keep_empty):
            found.setdefault(problem, []).append(cut.id)
    return found


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
    paths: Sequence[PathLike],
    *,
    read_data: bool = False,
    keep_empty: bool = False,
    bpe_model: PathLike = "",
    allow_commands: bool = False,
) -> None:
    """Check manifests and log their problems.

    With ``bpe_model``, print the statistics of good ones.

    Raises:
      UserError: a manifest is missing, damaged or empty, or has problems.
    """
    for path in paths:
        _validate(path, read_data, keep_empty, allow_commands)
        if bpe_model:
            describe_manifests([path], bpe_model, allow_commands)


def _validate(path: PathLike, read_data: bool, keep_empty: bool, allow_commands: bool) -> None:
    number = 0

    def counted() -> Iterator["Cut"]:
        nonlocal number
        for cut in iterate_cuts(path, allow_commands):
            number += 1
            yield cut

    problems = validate_cuts(counted(), read_data, keep_empty)
    for problem, ids in problems.items():
        shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
        logging.error("%s: %d cuts: %s (%s)", path, len(ids), problem, shown)
    if problems:
        unfit = {i for ids in problems.values() for i in ids}
        raise UserError(f"{path}: {len(unfit)} of {number} cuts are unfit, see above")
    if number == 0:
        raise UserError(f"{path}: no cuts")
    logging.info("%s: %d cuts are fine", path, number)
