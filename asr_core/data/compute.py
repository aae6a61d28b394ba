"""Computing and storing the features of a part of a corpus, by many processes, resumable."""

import contextlib
import gzip
import json
import logging
import shutil
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, List, Mapping, Optional, Tuple

import torch
from lhotse.features.base import Features
from lhotse.utils import fastcopy
from tqdm import tqdm

from asr_core.data.cut_refs import at_speed
from asr_core.data.dataset import FeaturesOfAudio
from asr_core.data.features import describe_features, make_extractor
from asr_core.data.left_out import left_out_list, note_left_out, refuse_losses
from asr_core.data.manifest import cuts_of_span, iterate_cuts, join_manifests, write_cuts
from asr_core.data.manifest_lines import count_lines
from asr_core.data.options import FIRST, FeatureOptions
from asr_core.data.parallel import dask_client, process_map
from asr_core.data.patience import patiently, sources_of
from asr_core.data.preparation_options import FbankOptions
from asr_core.data.read_errors import short_reason
from asr_core.data.storage import FlatFeaturesWriter
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, digest_of, write_text_atomic
from asr_core.utils.lock import hold_output

if TYPE_CHECKING:
    import numpy as np
    from dask.distributed import Client
    from lhotse.cut import Cut

# Cuts of a shard: large enough that starting one costs nothing, small enough that a crash loses
# little.
_SHARD_CUTS = 500
_SPEEDS = (1.0, 0.9, 1.1)
_SUFFIXES = (".f16", ".json", ".gz")  # of the files in a folder of features


@dataclass
class Computed:
    """The result of computing features.

    Attributes:
      cuts: number of cuts that have features.
      seconds: their duration.
      dropped: (id, reason) of the cuts whose audio could not be read.
    """

    cuts: int = 0
    seconds: float = 0.0
    dropped: List[Tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """The features of one shard: a span of lines of a manifest, at one speed.

    Attributes:
      source: the manifest.
      folder: where features go, absolute, for processes that may run elsewhere.
      recorded_folder: the same as the user wrote it, which the written manifests name.
      number: number of the shard.
      first, last: the span, ``last`` not included.
      speed: playing speed.
      opts: the features to compute.
      channel: of recordings with several.
      allow_commands: whether cuts may run programs when they are read.
    """

    source: str
    folder: str
    recorded_folder: str
    number: int
    first: int
    last: int
    speed: float
    opts: FeatureOptions
    channel: str
    allow_commands: bool

    def path(self, suffix: str) -> Path:
        """Return the path of the shard's file with this suffix."""
        return Path(self.folder) / f"{self.number:04d}{suffix}"


def compute_parts(opts: FbankOptions) -> None:
    """Compute and store the features of parts of a corpus, except those that have a manifest.

    Raises:
      UserError: see :func:`compute_features`; or no Dask scheduler answers.
    """
    start = f"{opts.prefix}_" if opts.prefix else ""
    targets = {  # the part "" is a corpus of a single manifest
        part: Path(opts.output_dir) / f"{start}cuts{part and '_'}{part}.jsonl.gz"
        for part in opts.parts or ("",)
    }
    waiting = {part: target for part, target in targets.items() if _is_waiting(target)}
    client = dask_client(opts.dask_scheduler) if opts.dask_scheduler and waiting else None
    try:
        for part, target in waiting.items():
            with hold_output(target, "computation of features", "choose another --output-dir"):
                _compute_part(opts, part, target, client)
    finally:
        if client is not None:
            client.close()


def _is_waiting(target: Path) -> bool:
    """Return whether a manifest of features is missing, or lacks recordings; log it otherwise."""
    record = left_out_list(target)
    if target.is_file() and record.is_file():
        logging.info("%s exists; the recordings that it lacks, see %s, are tried again", target, record)
    elif target.is_file():
        logging.info("%s exists; skipped", target)
        return False
    return True


def _compute_part(opts: FbankOptions, part: str, target: Path, client: Optional["Client"]) -> None:
    """Compute the features of one part, unless another process did so in the meantime."""
    if target.is_file() and not left_out_list(target).is_file():
        return
    source = _source_of(Path(opts.src_dir), opts.prefix, part, target.name, opts.allow_commands)
    perturb = opts.perturb_speed and part.startswith("train")
    done = compute_features(
        source,
        target,
        opts,
        nj=opts.nj,
        speed_perturb=perturb,
        client=client,
        channel=opts.channel,
        allow_commands=opts.allow_commands,
        max_unreadable=opts.max_unreadable,
    )
    hours, dropped = done.seconds / 3600, len(done.dropped)
    again = f", see {left_out_list(target)}; the same command tries them again while that list is there"
    logging.info(
        "%s: %d cuts, %.2f hours, %d left out as unreadable%s",
        target,
        done.cuts,
        hours,
        dropped,
        again if dropped else "",
    )


def _source_of(folder: Path, prefix: str, part: str, name: str, allow_commands: bool) -> Path:
    """Return the manifest of cuts without features, creating it if necessary."""
    source = folder / name
    if not source.is_file() and (folder / f"{prefix}_recordings_{part}.jsonl.gz").is_file():
        write_cuts(join_manifests(folder, prefix, part, allow_commands), source)
    return source


def compute_features(
    source: Path,
    target: Path,
    opts: FeatureOptions,
    *,
    nj: int = 1,
    speed_perturb: bool = False,
    progress: bool = True,
    client: Optional["Client"] = None,
    channel: str = FIRST,
    allow_commands: bool = False,
    max_unreadable: float = 1.0,
) -> Computed:
    """Compute and store the features of the cuts in ``source``; list them in ``target``.

    The features go beside ``target``, into a folder named after it, in shards that do not depend on
    ``nj``. Shards that an interrupted call with the same arguments completed are kept. The manifest
    is written last, so that its existence means that everything is complete, but for the recordings
    that are listed beside it as left out: the same call tries those again.

    Args:
      source: manifest of cuts with recordings.
      target: manifest to write, ``<prefix>_cuts_<part>.jsonl.gz``.
      opts: the features to compute.
      nj: number of processes.
      speed_perturb: also store each cut at speeds 0.9 and 1.1.
      progress: show a progress bar.
      client: see :func:`~asr_core.data.parallel.process_map`; the cluster's machines must see the
        same files under the same names.
      channel: of recordings with several, see :func:`~asr_core.data.cut_audio.load_samples`.
      allow_commands: whether cuts may run programs when they are read.
      max_unreadable: share of the cuts that may be unreadable.

    Returns:
      How many cuts have features, and those that were left out because their audio is unreadable.

    Raises:
      UserError: ``source`` is missing or empty, or too little audio could be read; the same
        call tries that again.
    """
    if not source.is_file():
        raise UserError(f"no cut manifest {source}; run prepare.sh from stage 1")
    total = count_lines(source)
    if not total:
        raise UserError(f"{source} has no cuts")
    speeds = _SPEEDS if speed_perturb else _SPEEDS[:1]
    recorded = target.parent / target.name.split(".")[0].replace("_cuts", "_feats")
    folder = recorded.resolve()
    _start_folder(folder, {**_settings(source, opts, speeds), "channel": channel}, target)
    jobs = _jobs(source, recorded, total, speeds, opts, channel, allow_commands)
    waiting = [job for job in jobs if not job.path(".json").is_file() or _record_of(job).dropped]
    if len(waiting) < len(jobs):
        logging.info("%s: %d of %d shards were done before", target, len(jobs) - len(waiting), len(jobs))
    results = process_map(_compute_shard, waiting, min(nj, len(waiting)), client)
    _run(results, waiting, f"features {target.name}", progress)
    done = _collect(jobs)
    left_out = [f"{cut_id}: {reason}" for cut_id, reason in done.dropped]
    refuse_losses(source, left_out, total * len(speeds), max_unreadable)
    form = describe_features(opts.sample_rate, opts.num_mel_bins, opts.feature_type)
    write_text_atomic(folder / "features.json", json.dumps(form, indent=2) + "\n")
    _finish(jobs, target, left_out)
    return done


def _finish(jobs: List[_Job], target: Path, left_out: List[str]) -> None:
    """Write the manifest, and the list of what it lacks; remove the records of complete shards."""
    if left_out:  # before the manifest, which might otherwise seem to be complete
        note_left_out(target, left_out)
    with atomic_path(target) as tmp, open(tmp, "wb") as out:
        for job in jobs:  # members of a gzip file may simply follow one another
            with open(job.path(".jsonl.gz"), "rb") as shard:
                shutil.copyfileobj(shard, out)
    if not left_out:  # otherwise the records of the shards serve the next try
        note_left_out(target, [])
        for job in jobs:
            for suffix in (".json", ".jsonl.gz"):
                job.path(suffix).unlink()
        (Path(jobs[0].folder) / "settings.json").unlink()


def _settings(source: Path, opts: FeatureOptions, speeds: Tuple[float, ...]) -> Mapping[str, object]:
    """Return all that the content of the shards depends on."""
    return {
        "source": digest_of(source),
        "speeds": speeds,
        "rate": opts.sample_rate,
        "mels": opts.num_mel_bins,
        "type": opts.feature_type,
        "shard": _SHARD_CUTS,
    }


def _jobs(
    source: Path,
    recorded: Path,
    total: int,
    speeds: Tuple[float, ...],
    opts: FeatureOptions,
    channel: str,
    allow_commands: bool,
) -> List[_Job]:
    starts = [(speed, first) for speed in speeds for first in range(0, total, _SHARD_CUTS)]
    return [
        _Job(
            source=str(source.resolve()),
            folder=str(recorded.resolve()),
            recorded_folder=str(recorded),
            number=number,
            first=first,
            last=min(first + _SHARD_CUTS, total),
            speed=speed,
            opts=opts,
            channel=channel,
            allow_commands=allow_commands,
        )
        for number, (speed, first) in enumerate(starts)
    ]


def _start_folder(folder: Path, settings: Mapping[str, object], target: Path) -> None:
    """Keep the shards of an interrupted call with these settings; remove those of others.

    Their manifest ``target``, which then lacks recordings, goes with them.

    Raises:
      UserError: it holds features of another program.
    """
    record = folder / "settings.json"
    text = json.dumps(settings)
    if record.is_file() and record.read_text() == text:
        return
    ours = record.is_file() or (folder / "features.json").is_file()
    found = sorted(folder.glob("*"))
    others = [path.name for path in found if not (ours and path.suffix in _SUFFIXES and path.is_file())]
    if others:
        raise UserError(
            f"{folder} has features of another program ({others[0]}) but no manifest: move the folder away"
        )
    if found:
        target.unlink(missing_ok=True)
    for path in found:
        path.unlink()
    write_text_atomic(record, text)


def _run(results: Iterator[int], jobs: List[_Job], title: str, progress: bool) -> None:
    total = sum(job.last - job.first for job in jobs)
    with tqdm(total=total, desc=title, unit="cut", disable=not (progress and sys.stderr.isatty())) as bar:
        for number in results:
            bar.update(number)


def _collect(jobs: List[_Job]) -> Computed:
    """Add up the records of all shards."""
    done = Computed()
    for job in jobs:
        part = _record_of(job)
        done.cuts += part.cuts
        done.seconds += part.seconds
        done.dropped += [(cut_id, reason) for cut_id, reason in part.dropped]
    for cut_id, reason in done.dropped[:5]:
        logging.warning("left out %s: %s", cut_id, reason)
    if len(done.dropped) > 5:
        logging.warning("... and %d more", len(done.dropped) - 5)
    return done


def _record_of(job: _Job) -> Computed:
    return Computed(**json.loads(job.path(".json").read_text()))


def _compute_shard(job: _Job) -> int:
    """Write features, cuts and (last) the record of one shard; return its number of lines."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cuts, done = _features_of(job)
    finally:
        torch.set_num_threads(threads)
    if cuts:
        write_cuts(cuts, job.path(".jsonl.gz"))
    else:
        with atomic_path(job.path(".jsonl.gz")) as tmp:
            tmp.write_bytes(gzip.compress(b""))
    write_text_atomic(job.path(".json"), json.dumps(asdict(done)))
    return job.last - job.first


def _features_of(job: _Job) -> Tuple[List["Cut"], Computed]:
    """Write the features of one shard; return the cuts that have them.

    Those that an earlier call wrote stay where they are, because a training may read them, and what
    it could not read comes after them.
    """
    features_of = FeaturesOfAudio(job.opts, job.channel)
    kind = make_extractor(*features_of.form).name
    kept: List["Cut"] = []
    done = Computed()
    path = job.path(".f16")
    earlier = iterate_cuts(job.path(".jsonl.gz"), job.allow_commands) if job.path(".json").is_file() else None
    with _feature_file(path, again=earlier is not None) as writer:
        known = next(earlier, None) if earlier else None
        for cut in _cuts_of(job):
            if earlier and known is not None and cut.id == known.id:
                kept.append(known)
                known = next(earlier, None)
                continue
            try:
                matrix = patiently(partial(features_of, cut), partial(sources_of, cut, stored=False))
            except Exception as e:  # the readers raise many kinds; one bad file must not end the preparation
                done.dropped.append((cut.id, short_reason(e)))
                continue
            features = _describe_matrix(cut, matrix, kind, writer.name)
            features.storage_path = f"{job.recorded_folder}/{path.name}"
            features.storage_key = writer.write(cut.id, matrix)
            kept.append(fastcopy(cut, features=features))
    done.cuts, done.seconds = len(kept), sum(cut.duration for cut in kept)
    return kept, done


@contextlib.contextmanager
def _feature_file(path: Path, again: bool) -> Iterator[FlatFeaturesWriter]:
    """Open a shard's file of features, to write it, whole or not at all, or to add to it."""
    if again:
        with FlatFeaturesWriter(str(path), mode="ab") as writer:
            yield writer
    else:
        with atomic_path(path) as tmp, FlatFeaturesWriter(str(tmp)) as writer:
            yield writer


def _describe_matrix(cut: "Cut", matrix: "np.ndarray", kind: str, storage: str) -> Features:
    """Return lhotse's record of a feature matrix (T, C), without the place where it is stored."""
    return Features(
        type=kind,
        num_frames=matrix.shape[0],
        num_features=matrix.shape[1],
        frame_shift=0.01,
        sampling_rate=cut.sampling_rate,
        start=cut.start,
        duration=cut.duration,
        storage_type=storage,
        storage_path="",
        storage_key="",
        recording_id=cut.recording_id,
        channels=cut.channel,
    )


def _cuts_of(job: _Job) -> Iterator["Cut"]:
    for cut in cuts_of_span(job.source, job.first, job.last, job.allow_commands):
        if cut.sampling_rate != job.opts.sample_rate:
            cut = cut.resample(job.opts.sample_rate)
        yield at_speed(cut, job.speed)
