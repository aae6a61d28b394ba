"""Features of a whole part of a corpus, computed by many processes and stored; what a crash interrupted is continued."""

import gzip
import json
import logging
import multiprocessing
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Optional, Tuple, TypeVar

from asr_core.data.manifest import count_lines, digest_of, open_lines, write_cuts
from asr_core.data.options import DataOptions
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, write_text_atomic
from asr_core.utils.runtime import die_with_parent

T = TypeVar("T")
R = TypeVar("R")
_SHARD_CUTS = 500
_SPEEDS = (1.0, 0.9, 1.1)
_SUFFIXES = (".f16", ".json", ".gz")  # of the files in a folder of features


@dataclass
class Computed:
    """What became of cuts: how many have features, their seconds, and (id, reason) of those whose audio could not be read."""

    cuts: int = 0
    seconds: float = 0.0
    dropped: List[Tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """Lines ``first`` up to but without ``last`` of a manifest, at one speed, for the shard of this number.

    The manifests name ``recorded_folder``, as the user wrote it; ``folder`` is the same and absolute, for processes elsewhere.
    """

    source: str
    folder: str
    recorded_folder: str
    number: int
    first: int
    last: int
    speed: float
    opts: DataOptions

    def path(self, suffix: str) -> Path:
        return Path(self.folder) / f"{self.number:04d}{suffix}"


def process_map(
    function: Callable[[T], R], items: Iterable[T], nj: int, client: Optional[Any] = None
) -> Iterator[R]:
    """``map`` with ``nj`` processes, results in order; in this process if ``nj`` is 1.

    Args:
      function: a function at the top level of a module.
      items: its arguments.
      nj: number of processes.
      client: a ``dask.distributed.Client``, whose cluster then does the work instead of processes of this machine.

    Raises:
      UserError: a process was killed, as happens when the memory is full.
    """
    if client is not None:
        for future in client.map(function, list(items), pure=False):
            yield future.result()
        return
    if nj <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(nj, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as e:
            raise UserError(
                "a worker process was killed; if memory ran out, start the same command again with a smaller --nj"
            ) from e
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def dask_client(address: str) -> Any:
    """A connection to the Dask scheduler at ``address``, e.g. ``tcp://node1:8786``.

    Raises:
      UserError: Dask is not installed, or nobody answers there.
    """
    try:
        from dask.distributed import Client
    except ImportError as e:
        raise UserError("--dask-scheduler needs Dask: pip install 'dask[distributed]'") from e
    try:
        return Client(address, timeout=20)
    except (OSError, ValueError) as e:
        raise UserError(f"no Dask scheduler answers at {address}: {e}") from e


def _start_worker() -> None:
    import torch

    die_with_parent(signal.SIGKILL)
    torch.set_num_threads(1)


def compute_features(
    source: Path,
    target: Path,
    opts: DataOptions,
    nj: int = 1,
    speed_perturb: bool = False,
    progress: bool = True,
    client: Optional[Any] = None,
) -> Computed:
    """Compute and store the features of the cuts in ``source``; ``target`` gets the cuts with features.

    The features are written beside ``target``, in a folder named after it, in shards that do not depend on ``nj``. Shards that
    an interrupted call with the same arguments completed are kept. The manifest is written last, so that its existence means
    that all is there.

    Args:
      source: manifest of cuts with recordings.
      target: manifest to write, ``<prefix>_cuts_<part>.jsonl.gz``.
      opts: ``sample_rate``, ``num_mel_bins`` and ``feature_type``.
      nj: number of processes.
      speed_perturb: also store each cut at speeds 0.9 and 1.1.
      progress: show a progress bar.
      client: see :func:`process_map`; the cluster's machines must see the same files under the same names.

    Returns:
      How many cuts have features, and those that were left out because their audio could not be read.

    Raises:
      UserError: ``source`` is missing or empty, or no audio at all could be read.
    """
    if not source.is_file():
        raise UserError(f"no cut manifest {source}; run prepare.sh from stage 1")
    import asr_core.data.dataset  # noqa: F401  (before processes are forked, which then need not load it)
    from asr_core.data.features import describe_features

    total = count_lines(source)
    if not total:
        raise UserError(f"{source} has no cuts")
    recorded = target.parent / target.name.split(".")[0].replace("_cuts", "_feats")
    folder = recorded.resolve()
    speeds = _SPEEDS if speed_perturb else _SPEEDS[:1]
    of = {"source": digest_of(source), "speeds": speeds, "rate": opts.sample_rate, "mels": opts.num_mel_bins}
    of.update(type=opts.feature_type, shard=_SHARD_CUTS)
    _start_folder(folder, of)
    spans = [
        (speed, i, min(i + _SHARD_CUTS, total)) for speed in speeds for i in range(0, total, _SHARD_CUTS)
    ]
    where = (str(source.resolve()), str(folder), str(recorded))
    jobs = [_Job(*where, n, i, j, speed, opts) for n, (speed, i, j) in enumerate(spans)]
    waiting = [job for job in jobs if not job.path(".json").is_file()]
    if len(waiting) < len(jobs):
        logging.info("%s: %d of %d shards were done before", target, len(jobs) - len(waiting), len(jobs))
    _run(
        process_map(_compute_shard, waiting, min(nj, len(waiting)), client),
        waiting,
        f"features {target.name}",
        progress,
    )
    done = _collect(jobs)
    if not done.cuts:
        raise UserError(
            f"{source}: none of the {total} recordings could be read; the first: {done.dropped[0][1]}"
        )
    form = describe_features(opts.sample_rate, opts.num_mel_bins, opts.feature_type)
    write_text_atomic(folder / "features.json", json.dumps(form, indent=2) + "\n")
    _join_manifests(jobs, target)
    for job in jobs:
        for suffix in (".json", ".jsonl.gz"):
            job.path(suffix).unlink()
    (folder / "settings.json").unlink()
    return done


def _join_manifests(jobs: List[_Job], target: Path) -> None:
    with atomic_path(target) as tmp, open(tmp, "wb") as out:
        for job in jobs:  # members of a gzip file may simply follow one another
            with open(job.path(".jsonl.gz"), "rb") as shard:
                shutil.copyfileobj(shard, out)


def _start_folder(folder: Path, settings: Any) -> None:
    """Keep what an interrupted call with these settings left in ``folder``, remove what other calls left.

    Raises:
      UserError: there are features of another program.
    """
    record = folder / "settings.json"
    text = json.dumps(settings)
    if record.is_file() and record.read_text() == text:
        return
    others = [path.name for path in folder.glob("*") if path.suffix not in _SUFFIXES]
    if others:
        raise UserError(
            f"{folder} has features of another program ({others[0]}), but their manifest is not there: move one of them"
        )
    shutil.rmtree(folder, ignore_errors=True)
    write_text_atomic(record, text)


def _run(results: Iterator[int], jobs: List[_Job], what: str, progress: bool) -> None:
    from tqdm import tqdm

    total = sum(job.last - job.first for job in jobs)
    with tqdm(total=total, desc=what, unit="cut", disable=not (progress and sys.stderr.isatty())) as bar:
        for number in results:
            bar.update(number)


def _collect(jobs: List[_Job]) -> Computed:
    """Sum up what the records of all shards say."""
    done = Computed()
    for job in jobs:
        part = Computed(**json.loads(job.path(".json").read_text()))
        done.cuts += part.cuts
        done.seconds += part.seconds
        done.dropped += [(cut_id, reason) for cut_id, reason in part.dropped]
    for cut_id, reason in done.dropped[:5]:
        logging.warning("left out %s: %s", cut_id, reason)
    if len(done.dropped) > 5:
        logging.warning("... and %d more", len(done.dropped) - 5)
    return done


def _compute_shard(job: _Job) -> int:
    """Write features, cuts and (last) the record of one shard; returns the number of cuts that it was given."""
    import torch

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


def _features_of(job: _Job) -> Tuple[List[Any], Computed]:
    from lhotse.features.base import Features
    from lhotse.utils import fastcopy

    from asr_core.data.dataset import FeaturesOfAudio, short_reason
    from asr_core.data.storage import FlatFeaturesWriter

    features_of = FeaturesOfAudio(job.opts)
    kept: List[Any] = []
    done = Computed()
    path = job.path(".f16")
    with atomic_path(path) as tmp, FlatFeaturesWriter(str(tmp)) as writer:
        for cut in _cuts_of(job):
            try:
                matrix = features_of(cut)
            except (
                Exception
            ) as e:  # the readers raise many kinds; one bad file must not end the whole preparation
                done.dropped.append((cut.id, short_reason(e)))
                continue
            features = Features(
                type=features_of.extractor.name,
                num_frames=matrix.shape[0],
                num_features=matrix.shape[1],
                frame_shift=0.01,
                sampling_rate=cut.sampling_rate,
                start=cut.start,
                duration=cut.duration,
                storage_type=writer.name,
                storage_path=f"{job.recorded_folder}/{path.name}",
                storage_key=writer.write(cut.id, matrix),
                recording_id=cut.recording_id,
                channels=cut.channel,
            )
            kept.append(fastcopy(cut, features=features))
            done.cuts += 1
            done.seconds += cut.duration
    return kept, done


def _cuts_of(job: _Job) -> Iterator[Any]:
    from lhotse.serialization import decode_json_line, deserialize_item

    with open_lines(Path(job.source)) as lines:
        for line in islice(lines, job.first, job.last):
            cut = deserialize_item(decode_json_line(line))
            if cut.sampling_rate != job.opts.sample_rate:
                cut = cut.resample(job.opts.sample_rate)
            yield cut if job.speed == 1.0 else cut.perturb_speed(job.speed)
