"""Reading and writing cut manifests."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Optional

from lhotse import AudioSource, CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet

import asr_core.data.storage  # noqa: F401  (makes the format of stored features known to lhotse)
from asr_core.data.cut_audio import CUSTOM_FIELD
from asr_core.data.cut_refs import parse_cut
from asr_core.data.manifest_lines import open_lines
from asr_core.data.options import MIX
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike, atomic_path

if TYPE_CHECKING:
    from lhotse.cut import Cut


def iterate_cuts(path: PathLike) -> Iterator["Cut"]:
    """Yield the cuts of a manifest.

    Raises:
      UserError: it is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such manifest: {path}")
    try:
        cuts = CutSet.from_file(path)
        if cuts is not None:  # as lhotse makes of an empty file
            yield from cuts
    except Exception as e:  # gzip, JSON and lhotse each have their own kinds
        raise UserError(f"manifest {path} is damaged: {type(e).__name__}: {e}") from e


def cuts_of_span(path: PathLike, first: int, last: int) -> Iterator["Cut"]:
    """Yield the cuts on lines ``first`` to ``last`` - 1; errors as :func:`open_lines`."""
    with open_lines(path) as lines:
        for line in islice(lines, first, last):
            yield parse_cut(line)


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
    """Write a cut manifest, whole or not at all."""
    with atomic_path(path) as tmp:
        CutSet.from_cuts(cuts).to_file(tmp)
