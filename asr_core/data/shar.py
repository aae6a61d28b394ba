"""Writing Lhotse Shar: numbered shards, each a manifest of cuts and tar files of their data."""

import json
import logging
import os
import re
import shutil
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Dict, NamedTuple

from lhotse.shar import SharWriter

from asr_core.data.cut_audio import load_samples
from asr_core.data.cut_summary import view_of_line
from asr_core.data.left_out import left_out_list, note_left_out, refuse_losses
from asr_core.data.manifest import cuts_of_span
from asr_core.data.manifest_lines import NOT_A_CUT, count_lines, not_a_cut, open_lines
from asr_core.data.open_cuts import shar_record, shar_started
from asr_core.data.parallel import process_map
from asr_core.data.patience import patiently, sources_of
from asr_core.data.read_errors import short_reason
from asr_core.utils.errors import UserError
from asr_core.utils.files import digest_of, write_text_atomic
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    from lhotse.cut import Cut

_SHARD = re.compile(r"\w+\.\d{6}\.(tar|jsonl\.gz)")  # names of shards
_PATTERN = "{}.{:06d}.{}"


class _Job(NamedTuple):
    """One shard: lines ``first`` to ``last`` - 1 of a manifest, and the data to write."""

    source: str
    folder: str
    number: int
    first: int
    last: int
    fields: Dict[str, str]
    allow_commands: bool

    @property
    def target(self) -> Path:
        """The shard's manifest, which is written last."""
        return Path(self.folder) / _PATTERN.format("cuts", self.number, "jsonl.gz")

    @property
    def work(self) -> Path:
        """Where the shard is made, beside the folder."""
        folder = Path(self.folder)
        return folder.parent / f".{folder.name}-{self.number:06d}"

    @property
    def left_out(self) -> Path:
        """Lines about the cuts that could not be read, if any; the next call tries them again."""
        return self.work.with_name(f"{self.work.name}.left_out")


def shar_fields(
    source: PathLike, data: str = "", *, features_format: str = "numpy", audio_format: str = "flac"
) -> Dict[str, str]:
    """Return the fields that :func:`write_shar` is to store.

    Args:
      source: cut manifest.
      data: "features", "audio", or "": features if the first cut has them, else audio.
      features_format: "numpy" or "lilcom".
      audio_format: "flac", "wav" or "original".

    Raises:
      UserError: the manifest is missing or damaged, or the package that a format needs.
    """
    if features_format == "lilcom" and find_spec("lilcom") is None:
        raise UserError("--features-format lilcom needs the package lilcom: pip install lilcom")
    if not data:
        with open_lines(source) as lines:
            first = next(iter(lines), None)
        try:
            has_features = first is not None and view_of_line(first, allow_commands=True).has_features
        except NOT_A_CUT as e:
            raise not_a_cut(source, 1, first or b"", e) from e
        data = "features" if has_features else "audio"
    return {"features": features_format} if data == "features" else {"recording": audio_format}


def write_shar(
    source: Path,
    folder: Path,
    fields: Dict[str, str],
    shard_size: int = 1000,
    nj: int = 1,
    allow_commands: bool = False,
    max_unreadable: float = 1.0,
) -> int:
    """Write the cuts of a manifest and their data as Shar, by several processes.

    A call after a crash resumes the work. Cuts that cannot be read are left out, and listed beside
    the folder in <folder>_left_out.txt; while that list is there, the same call tries them again.

    Args:
      source: cut manifest.
      folder: folder for ``cuts.000000.jsonl.gz``, ``features.000000.tar``, ...; nothing else may be
        in it.
      fields: the data to store and their form, as ``lhotse.shar.SharWriter`` takes them, e.g.
        ``{"features": "numpy"}``.
      shard_size: cuts in a shard.
      nj: number of processes.
      allow_commands: whether cuts may run programs when they are read.
      max_unreadable: share of the cuts that may be unreadable.

    Returns:
      The number of shards.

    Raises:
      UserError: ``source`` is missing or empty, ``folder`` holds what this function did not write,
        or too many cuts are unreadable; the same call tries those again.
    """
    total = count_lines(source)
    if not total:
        raise UserError(f"{source} has no cuts")
    settings = json.dumps({"source": digest_of(source), "fields": fields, "shard_size": shard_size})
    starts = range(0, total, shard_size)
    jobs = [
        _Job(str(source), str(folder), n, first, min(first + shard_size, total), fields, allow_commands)
        for n, first in enumerate(starts)
    ]
    record = shar_record(folder)
    # The folder may have been removed by hand, which leaves the record behind.
    if record.is_file() and record.read_text() == settings and jobs[-1].target.is_file():
        if not left_out_list(folder).is_file():  # nothing is missing, or the user accepts it
            for job in jobs:
                job.left_out.unlink(missing_ok=True)
            return len(jobs)
        os.replace(record, shar_started(folder))
    _start_folder(folder, settings)
    waiting = [job for job in jobs if job.left_out.is_file() or not job.target.is_file()]
    for _ in process_map(_write_shard, waiting, min(nj, len(waiting))):
        pass
    lacking = [job.left_out for job in jobs if job.left_out.is_file()]
    left_out = [line for path in lacking for line in path.read_text(encoding="utf-8").splitlines()]
    refuse_losses(source, left_out, total, max_unreadable)
    note_left_out(folder, left_out)
    os.replace(shar_started(folder), record)
    again = f", see {left_out_list(folder)}; the same command tries them again while that list is there"
    hint, kinds = again if left_out else "", ", ".join(fields)
    logging.info("%s: %d shards with %s, %d cuts left out%s", folder, len(jobs), kinds, len(left_out), hint)
    return len(jobs)


def _start_folder(folder: Path, settings: str) -> None:
    """Keep the shards of an interrupted call with these settings; remove those of others.

    Raises:
      UserError: it holds foreign files.
    """
    record, started = shar_record(folder), shar_started(folder)
    if not started.is_file() or started.read_text() != settings:
        ours = started.is_file() or record.is_file()
        if folder.is_dir():
            others = [path for path in folder.iterdir() if not (ours and _SHARD.fullmatch(path.name))]
            if others:
                raise UserError(
                    f"{folder} holds what this program did not write, e.g. {others[0].name}: name another "
                    f"folder, e.g. {folder / 'train'}"
                )
            for path in folder.iterdir():
                path.unlink()
        for path in folder.parent.glob(".*.left_out"):
            if path.name.startswith(f".{folder.name}-"):
                path.unlink()
        record.unlink(missing_ok=True)
        write_text_atomic(started, settings)
    folder.mkdir(parents=True, exist_ok=True)


def _unreadable(cut: "Cut", audio: bool) -> str:
    """Return why the data of a cut cannot be read, or "": a shard must not get half of a cut."""
    try:
        if audio:
            patiently(partial(load_samples, cut), partial(sources_of, cut, stored=False))
        elif cut.has_features:
            patiently(cut.load_features, partial(sources_of, cut, stored=True))
    except Exception as e:  # the readers raise many kinds; one bad file must not end the preparation
        return short_reason(e)
    return ""


def _write_shard(job: _Job) -> int:
    """Write one shard next to the folder, then move it in, cuts last; return the number of cuts."""
    folder, work = Path(job.folder), job.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    cuts = list(cuts_of_span(job.source, job.first, job.last, job.allow_commands))
    left_out = []
    with SharWriter(str(work), job.fields, shard_size=None, warn_unused_fields=False) as writer:
        for cut in cuts:
            reason = _unreadable(cut, "recording" in job.fields)
            if reason:
                logging.warning("left out %s: %s", cut.id, reason)
                left_out.append(f"{cut.id}: {reason}\n")
                continue
            writer.write(cut.drop_recording() if "recording" not in job.fields and cut.has_recording else cut)
    for field in job.fields:
        os.replace(work / f"{field}.tar", folder / _PATTERN.format(field, job.number, "tar"))
    if left_out:
        write_text_atomic(job.left_out, "".join(left_out))
    else:
        job.left_out.unlink(missing_ok=True)
    os.replace(work / "cuts.jsonl.gz", job.target)
    work.rmdir()
    return len(cuts)
