"""Reading and writing cut manifests."""

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Optional, Tuple

from lhotse import (
    AudioSource,
    CutSet,
    MonoCut,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
    load_manifest,
)
from lhotse.cut import MixedCut, MultiCut
from lhotse.serialization import deserialize_item

import asr_core.data.storage  # noqa: F401  (makes the format of stored features known to lhotse)
from asr_core.data.cut_audio import CUSTOM_FIELD
from asr_core.data.manifest_lines import NOT_A_CUT, not_a_cut, open_lines
from asr_core.data.open_cuts import shar_manifests
from asr_core.data.options import MIX
from asr_core.data.sources import check_sources
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    from lhotse.cut import Cut


def iterate_cuts(path: PathLike, allow_commands: bool = False) -> Iterator["Cut"]:
    """Yield the cuts of a manifest, or of a Shar folder without their data.

    Raises:
      UserError: it is missing or damaged, or reading a cut could run a program.
    """
    for manifest in shar_manifests(Path(path)) if Path(path).is_dir() else [path]:
        yield from _iterate(manifest, "a cut", (MonoCut, MultiCut, MixedCut), allow_commands)


def iterate_recordings(path: PathLike, allow_commands: bool = False) -> Iterator[Recording]:
    """Yield the recordings of a manifest; errors as :func:`iterate_cuts`."""
    yield from _iterate(path, "a recording", (Recording,), allow_commands)


def _iterate(path: PathLike, what: str, kinds: Tuple[type, ...], allow_commands: bool) -> Iterator[Any]:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such manifest: {path}")
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _other_format(path, allow_commands)
        return
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            yield _read(path, number, line, what, kinds, allow_commands)


def _read(
    path: PathLike, number: int, line: bytes, what: str, kinds: Tuple[type, ...], allow_commands: bool
) -> Any:
    """Return what is on a line of a manifest.

    Raises:
      UserError: it is none of ``kinds``, or reading it could run a program.
    """
    try:
        data = json.loads(line)
        check_sources(data, allow_commands)
        item = deserialize_item(data)
        if not isinstance(item, kinds):
            raise TypeError(f"it is of the kind {type(item).__name__}")
        return item
    except NOT_A_CUT as e:
        raise not_a_cut(path, number, line, e, what) from e
    except UserError as e:
        raise UserError(f"{path}:{number}: {e}") from e


def _other_format(path: Path, allow_commands: bool) -> Iterator["Cut"]:
    """Yield the items of a manifest in one of lhotse's other formats, such as YAML."""
    try:
        items = list(load_manifest(path) or ())
    except Exception as e:  # gzip, JSON, YAML and lhotse each have their own kinds
        raise UserError(f"manifest {path} is damaged: {type(e).__name__}: {e}") from e
    for item in items:
        check_sources(item.to_dict(), allow_commands)
        yield item


def cuts_of_span(path: PathLike, first: int, last: int, allow_commands: bool = False) -> Iterator["Cut"]:
    """Yield the cuts on lines ``first`` to ``last`` - 1; errors as :func:`iterate_cuts`."""
    with open_lines(path) as lines:
        for number, line in enumerate(islice(lines, first, last), first + 1):
            yield _read(path, number, line, "a cut", (MonoCut, MultiCut, MixedCut), allow_commands)


def join_manifests(folder: PathLike, prefix: str, part: str, allow_commands: bool = False) -> CutSet:
    """Make cuts of whole recordings.

    The recordings are those of ``<prefix>_recordings_<part>``, their texts those of
    ``<prefix>_supervisions_<part>``, as lhotse's recipes write them.

    Raises:
      UserError: one of the two manifests is missing or damaged, or reading it could run a program.
    """
    paths = [Path(folder) / f"{prefix}_{kind}_{part}.jsonl.gz" for kind in ("recordings", "supervisions")]
    for path in paths:
        if not path.is_file():
            raise UserError(f"no such manifest: {path}; run prepare.sh from stage 1")
    segments = _iterate(paths[1], "a supervision", (SupervisionSegment,), allow_commands)
    return CutSet.from_manifests(
        RecordingSet.from_recordings(iterate_recordings(paths[0], allow_commands)),
        SupervisionSet.from_segments(segments),
    )


def make_cut(
    cut_id: str,
    audio: PathLike,
    num_samples: int,
    sample_rate: int,
    text: str,
    speaker: Optional[str] = None,
    channels: int = 1,
    channel: int = 0,
    mix: bool = False,
) -> MonoCut:
    """Make the cut of one channel of a whole recording, with one supervision.

    Args:
      cut_id: its id, and that of its recording and supervision.
      audio: path of the file, stored as it is given.
      num_samples, sample_rate, channels: values of the file.
      text: the transcript.
      speaker: name of the speaker, if known.
      channel: the channel, from 0.
      mix: whether the mean of all channels is meant instead.
    """
    source = AudioSource(type="file", channels=list(range(channels)), source=str(audio))
    duration = num_samples / sample_rate
    recording = Recording(
        id=cut_id, sources=[source], sampling_rate=sample_rate, num_samples=num_samples, duration=duration
    )
    segment = SupervisionSegment(
        id=cut_id,
        recording_id=cut_id,
        start=0.0,
        duration=duration,
        channel=channel,
        text=text,
        speaker=speaker,
    )
    return MonoCut(
        id=cut_id,
        start=0.0,
        duration=duration,
        channel=channel,
        recording=recording,
        supervisions=[segment],
        custom={CUSTOM_FIELD: MIX} if mix else None,
    )


def write_cuts(cuts: Iterable["Cut"], path: PathLike) -> None:
    """Write a cut manifest, whole or not at all.

    Raises:
      UserError: its name does not end in ``.jsonl`` or ``.jsonl.gz``, or it cannot be written.
    """
    if not str(path).endswith((".jsonl", ".jsonl.gz")):
        raise UserError(f"cannot write cuts to {path}: the name of a manifest ends in .jsonl.gz")
    with atomic_path(path) as tmp:
        CutSet.from_cuts(cuts).to_file(tmp)
