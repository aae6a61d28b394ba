"""Reading, writing, checks and statistics of cut manifests."""

import contextlib
import gzip
import hashlib
import zlib
from array import array
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Dict, Iterable, Iterator, List, Optional, Sequence, Set

import numpy as np
from lhotse import AudioSource, CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet

import asr_core.data.storage  # noqa: F401  (makes the format of stored features known to lhotse)
from asr_core.data.cut_refs import parse_cut
from asr_core.data.read_errors import short_reason
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike, atomic_path, open_binary

if TYPE_CHECKING:
    from lhotse.cut import Cut

_TOLERANCE = 2e-3  # seconds that a supervision may lie outside its cut: manifests round durations


def iterate_cuts(path: PathLike) -> Iterator["Cut"]:
    """Yield the cuts of a manifest.

    Raises:
      UserError: it is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such manifest: {path}")
    try:
        yield from CutSet.from_file(path)
    except Exception as e:  # gzip, JSON and lhotse each have their own kinds
        raise UserError(f"manifest {path} is damaged: {type(e).__name__}: {e}") from e


@contextlib.contextmanager
def open_lines(path: PathLike) -> Iterator[BinaryIO]:
    """Open a manifest, ``.jsonl.gz`` or ``.jsonl``, to read its lines as bytes.

    Raises:
      UserError: it is missing; or, while it is read, it turns out to be damaged.
    """
    path = Path(path)
    try:
        with open_binary(path) as f:
            yield f
    except FileNotFoundError as e:
        raise UserError(f"no such manifest: {path}") from e
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"manifest {path} is damaged ({e}); remove it and run prepare.sh again") from e


def count_lines(path: PathLike) -> int:
    """Return the number of lines of a manifest; errors as :func:`open_lines`."""
    with open_lines(path) as f:
        return sum(1 for _ in f)


def cuts_of_span(path: PathLike, first: int, last: int) -> Iterator["Cut"]:
    """Yield the cuts on lines ``first`` to ``last`` - 1; errors as :func:`open_lines`."""
    with open_lines(path) as lines:
        for line in islice(lines, first, last):
            yield parse_cut(line)


def digest_of(path: PathLike) -> str:
    """Return a digest of a file's content."""
    with open(path, "rb") as f:
        digest = hashlib.blake2b(digest_size=16)
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def join_manifests(folder: PathLike, prefix: str, part: str) -> CutSet:
    """Make cuts of whole recordings.

    The recordings are those of ``<prefix>_recordings_<part>``, their texts those of
    ``<prefix>_supervisions_<part>``, as lhotse's recipes write them.

    Raises:
      UserError: one of the two manifests is missing.
    """
    paths = [Path(folder) / f"{prefix}_{kind}_{part}.jsonl.gz" for kind in ("recordings", "supervisions")]
    for path in paths:
        if not path.is_file():
            raise UserError(f"no such manifest: {path}; run prepare.sh from stage 1")
    return CutSet.from_manifests(RecordingSet.from_file(paths[0]), SupervisionSet.from_file(paths[1]))


def make_cut(
    cut_id: str,
    audio: PathLike,
    num_samples: int,
    sample_rate: int,
    text: str,
    speaker: Optional[str] = None,
    channels: int = 1,
) -> MonoCut:
    """Make the cut of a whole recording's first channel, with one supervision.

    Args:
      cut_id: its id, and that of its recording and supervision.
      audio: path of the file, stored as it is given.
      num_samples, sample_rate, channels: of the file.
      text: the transcript.
      speaker: name of the speaker, if known.
    """
    source = AudioSource(type="file", channels=list(range(channels)), source=str(audio))
    duration = num_samples / sample_rate
    recording = Recording(
        id=cut_id, sources=[source], sampling_rate=sample_rate, num_samples=num_samples, duration=duration
    )
    segment = SupervisionSegment(
        id=cut_id, recording_id=cut_id, start=0.0, duration=duration, channel=0, text=text, speaker=speaker
    )
    return MonoCut(
        id=cut_id, start=0.0, duration=duration, channel=0, recording=recording, supervisions=[segment]
    )


def write_cuts(cuts: Iterable["Cut"], path: PathLike) -> None:
    """Write a cut manifest, whole or not at all."""
    with atomic_path(path) as tmp:
        CutSet.from_cuts(cuts).to_file(tmp)


def problems_of(cut: "Cut", read_data: bool = False) -> List[str]:
    """Return what makes ``cut`` unfit for training or decoding.

    With ``read_data`` its features or audio are read, too.
    """
    found = []
    if len(cut.supervisions) != 1:
        found.append(f"{len(cut.supervisions)} supervisions where one is expected")
    for supervision in cut.supervisions:
        if abs(supervision.start) > _TOLERANCE:
            found.append(f"its supervision starts at {supervision.start:g} s")
        if supervision.end > cut.duration + _TOLERANCE:
            found.append(f"its supervision ends {supervision.end - cut.duration:.3f} s after it")
        if not (supervision.text or "").strip():
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
        data = cut.load_features() if cut.has_features else cut.load_audio()
    except Exception as e:  # the readers raise many kinds
        return [short_reason(e)]
    rows, expected = (len(data), cut.num_frames) if cut.has_features else (data.shape[1], cut.num_samples)
    return [] if abs(rows - expected) <= 1 else [f"{rows} rows of data where {expected} are expected"]


def validate_cuts(cuts: Iterable["Cut"], read_data: bool = False) -> Dict[str, List[str]]:
    """Return the ids of the cuts that have a problem, by problem; empty if there is none."""
    found: Dict[str, List[str]] = {}
    seen: Set[str] = set()
    for cut in cuts:
        if cut.id in seen:
            found.setdefault("duplicate id", []).append(cut.id)
        seen.add(cut.id)
        for problem in problems_of(cut, read_data):
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
        texts += [s.text or "" for s in cut.supervisions]
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
