"""Lhotse Shar: cuts and their data in numbered shards, a manifest and uncompressed tar files; written, and read at any place."""

import io
import json
import os
import shutil
import tarfile
from array import array
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

from asr_core.data.manifest import count_lines, digest_of, open_lines
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic

_PATTERN = "{}.{:06d}.{}"


class SharRef(NamedTuple):
    """A cut as a line of JSON, whose data are the ``index``-th entries of tar files, at a speed.

    Attributes:
      fields: name of each field and path of its tar file.
    """

    line: bytes
    fields: Tuple[Tuple[str, str], ...]
    index: int
    speed: float = 1.0

    def cut(self) -> Any:
        """The cut with its data in memory.

        Raises:
          UserError: a tar file is missing, damaged, or of another manifest.
        """
        from lhotse.serialization import decode_json_line, deserialize_item

        cut = deserialize_item(decode_json_line(self.line))
        for field, path in self.fields:
            manifest = _read_entry(path, self.index, cut.id)
            if manifest is not None:
                setattr(cut, field, manifest)
        return at_speed(cut, self.speed)


def at_speed(cut: Any, speed: float) -> Any:
    """``cut`` played at ``speed``, without its stored features unless that is 1."""
    if speed == 1.0:
        return cut
    return (cut.drop_features() if cut.has_features else cut).perturb_speed(
        speed
    )  # else lhotse warns of each


@lru_cache(maxsize=None)
def _entries(path: str) -> array:
    """Offset and size of the data and of the description of each entry of a tar file: four numbers an entry."""
    places = array("q")
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                places.extend((member.offset, member.offset_data + member.size - member.offset))
    except (OSError, tarfile.TarError) as e:
        raise UserError(f"cannot read {path}: {e}; write it again with asr_core.bin.write_shar") from e
    return places


def _read_entry(path: str, index: int, cut_id: str) -> Any:
    """One entry as lhotse's manifest with its data inside, or None if the cut has no such data."""
    from lhotse.serialization import decode_json_line, deserialize_item
    from lhotse.shar.utils import fill_shar_placeholder

    if not path.endswith(".tar"):
        raise UserError(
            f"{path}: data in this form cannot be read at any place; keep only tar files and cuts in the folder"
        )
    places = _entries(path)[4 * index : 4 * index + 4]
    with open(path, "rb") as f:
        members = [_member(f, *places[i : i + 2]) for i in (0, 2)] if len(places) == 4 else []
    if (
        len(members) != 2
        or Path(members[0][0]).stem != Path(members[1][0]).stem
        or _key(members[0][0]) != cut_id
    ):
        raise UserError(
            f"{path}: entry {index} is not that of cut {cut_id}; write it again with asr_core.bin.write_shar"
        )
    (name, data), (description, text) = members
    if description.endswith(".nometa"):
        return None
    manifest = deserialize_item(decode_json_line(text.decode("utf-8")))
    fill_shar_placeholder(manifest, data=data, tarpath=name)
    return manifest


def _member(f: Any, offset: int, size: int) -> Tuple[str, bytes]:
    f.seek(offset)
    with tarfile.open(fileobj=io.BytesIO(f.read(size)), mode="r:") as tar:
        member = tar.next()
        return member.name, tar.extractfile(member).read()  # type: ignore[union-attr]


def _key(name: str) -> str:
    return name.rsplit(".", 1)[0]


class _Job(NamedTuple):
    """Lines ``first`` up to but without ``last`` of a manifest, for the shard of this number."""

    source: str
    folder: str
    number: int
    first: int
    last: int
    fields: Dict[str, str]


def write_shar(
    source: Path, folder: Path, fields: Dict[str, str], shard_size: int = 1000, nj: int = 1
) -> int:
    """Write the cuts of a manifest and their data as Shar, by several processes; what a crash interrupted is continued.

    Args:
      source: cut manifest.
      folder: folder for ``cuts.000000.jsonl.gz``, ``features.000000.tar``, ...; nothing else may be in it.
      fields: which data, in which form, as ``lhotse.shar.SharWriter`` takes them, e.g. ``{"features": "numpy"}``.
      shard_size: cuts of a shard.
      nj: number of processes.

    Returns:
      The number of shards.

    Raises:
      UserError: ``source`` is missing or empty, or ``folder`` holds what this function did not write.
    """
    from asr_core.data.compute import process_map

    total = count_lines(source)
    if not total:
        raise UserError(f"{source} has no cuts")
    settings = json.dumps({"source": digest_of(source), "fields": fields, "shard_size": shard_size})
    record = shar_record(folder)
    began = record.with_suffix(".started")
    starts = range(0, total, shard_size)
    last = folder / _PATTERN.format("cuts", len(starts) - 1, "jsonl.gz")
    if (
        record.is_file() and record.read_text() == settings and last.is_file()
    ):  # the folder may have been removed by hand
        return len(starts)
    if not began.is_file() or began.read_text() != settings:
        if not (began.is_file() or record.is_file()) and folder.is_dir() and any(folder.iterdir()):
            raise UserError(
                f"{folder} is not empty, and holds no Shar of this program: name a folder of its own, e.g. {folder / 'train'}"
            )
        shutil.rmtree(folder, ignore_errors=True)
        record.unlink(missing_ok=True)
        write_text_atomic(began, settings)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        _Job(str(source), str(folder), n, i, min(i + shard_size, total), fields) for n, i in enumerate(starts)
    ]
    jobs = [job for job in jobs if not (folder / _PATTERN.format("cuts", job.number, "jsonl.gz")).is_file()]
    for _ in process_map(_write_shard, jobs, min(nj, len(jobs))):
        pass
    os.replace(began, record)
    return len(starts)


def shar_record(folder: Path) -> Path:
    """The file whose existence says that a Shar folder of ours is complete; beside the folder, for lhotse minds strangers in it."""
    return folder.parent / f".{folder.name}.shar.done"


def open_shar(folder: Path) -> Any:
    """The cuts of a Shar folder, a lazy CutSet.

    Raises:
      UserError: there are none, or the folder is not complete.
    """
    from lhotse import CutSet

    if shar_record(folder).with_suffix(".started").is_file():
        raise UserError(f"{folder} is not complete: start the command that writes it again")
    if not any(folder.glob("cuts.*.jsonl*")):
        raise UserError(f"no cuts in the Shar folder {folder}")
    return CutSet.from_shar(in_dir=folder)


def _write_shard(job: _Job) -> int:
    """Write one shard beside the folder, then move it there, the cuts last; returns its number of cuts."""
    from lhotse.serialization import decode_json_line, deserialize_item
    from lhotse.shar import SharWriter

    import asr_core.data.storage  # noqa: F401  (registers the reader of stored features)

    folder = Path(job.folder)
    work = folder.parent / f".{folder.name}-{job.number:06d}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    cuts: List[Any] = []
    with open_lines(job.source) as lines:
        cuts = [deserialize_item(decode_json_line(line)) for line in islice(lines, job.first, job.last)]
    with SharWriter(str(work), job.fields, shard_size=None, warn_unused_fields=False) as writer:
        for cut in cuts:
            writer.write(cut.drop_recording() if "recording" not in job.fields and cut.has_recording else cut)
    for field in job.fields:
        os.replace(work / f"{field}.tar", folder / _PATTERN.format(field, job.number, "tar"))
    os.replace(work / "cuts.jsonl.gz", folder / _PATTERN.format("cuts", job.number, "jsonl.gz"))
    work.rmdir()
    return len(cuts)
