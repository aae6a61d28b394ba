"""Features of a whole part of a corpus, computed by several processes and stored."""

import logging
import math
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, List, Tuple, TypeVar

from asr_core.data.manifest import write_cuts
from asr_core.data.options import DataOptions
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path

T = TypeVar("T")
R = TypeVar("R")
_SHARD_CUTS = 200
_SPEEDS = (0.9, 1.1)


@dataclass
class Computed:
    """What became of a list of cuts: those with features, and (id, reason) of those whose audio could not be read."""

    cuts: List[Any] = field(default_factory=list)
    dropped: List[Tuple[str, str]] = field(default_factory=list)


def process_map(function: Callable[[T], R], items: Iterable[T], nj: int) -> Iterator[R]:
    """``map`` with ``nj`` processes, results in order; in this process if ``nj`` is 1.

    Args:
      function: a function at the top level of a module.
      items: its arguments.
      nj: number of processes.

    Raises:
      UserError: a process was killed, as happens when the memory is full.
    """
    if nj <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(nj, mp_context=context, initializer=_one_thread) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as e:
            raise UserError("a worker process was killed; if memory ran out, start the same command again with a smaller --nj") from e
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def compute_features(
    source: Path, target: Path, opts: DataOptions, nj: int = 1, speed_perturb: bool = False, progress: bool = True
) -> Computed:
    """Compute and store the features of the cuts in ``source``; ``target`` gets the cuts with features.

    The features are written beside ``target``, in a folder named after it. The manifest is written last, so that its
    existence means that all is there.

    Args:
      source: manifest of cuts with recordings.
      target: manifest to write, ``<prefix>_cuts_<part>.jsonl.gz``.
      opts: ``sample_rate`` and ``num_mel_bins``.
      nj: number of processes.
      speed_perturb: also store each cut at speeds 0.9 and 1.1.
      progress: show a progress bar.

    Returns:
      The cuts, and those that were left out because their audio could not be read.

    Raises:
      UserError: ``source`` is missing or empty, or no audio at all could be read.
    """
    import torch
    from lhotse import CutSet

    if not source.is_file():
        raise UserError(f"no cut manifest {source}; run prepare.sh from stage 1")
    cuts = [c if c.sampling_rate == opts.sample_rate else c.resample(opts.sample_rate) for c in CutSet.from_file(source)]
    if not cuts:
        raise UserError(f"{source} has no cuts")
    if speed_perturb:
        cuts += [c.perturb_speed(speed) for speed in _SPEEDS for c in cuts]
    folder = target.parent / target.name.split(".")[0].replace("_cuts", "_feats")
    shards = max(1, min(math.ceil(len(cuts) / _SHARD_CUTS), 4 * max(1, nj)))
    size = math.ceil(len(cuts) / shards)
    jobs = [(cuts[i : i + size], folder / f"{i // size:04d}.f16", opts) for i in range(0, len(cuts), size)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done = _collect(process_map(_compute_shard, jobs, nj), len(cuts), f"features {target.name}", progress)
    finally:
        torch.set_num_threads(threads)
    if not done.cuts:
        raise UserError(f"{source}: none of the {len(cuts)} recordings could be read; the first: {done.dropped[0][1]}")
    write_cuts(done.cuts, target)
    return done


def _collect(results: Iterator[Computed], total: int, what: str, progress: bool) -> Computed:
    from tqdm import tqdm

    done = Computed()
    with tqdm(total=total, desc=what, unit="cut", disable=not (progress and sys.stderr.isatty())) as bar:
        for part in results:
            done.cuts += part.cuts
            done.dropped += part.dropped
            bar.update(len(part.cuts) + len(part.dropped))
    for cut_id, reason in done.dropped[:5]:
        logging.warning("left out %s: %s", cut_id, reason)
    if len(done.dropped) > 5:
        logging.warning("... and %d more", len(done.dropped) - 5)
    return done


def _compute_shard(job: Tuple[List[Any], Path, DataOptions]) -> Computed:
    from lhotse.features.base import Features
    from lhotse.utils import fastcopy

    from asr_core.data.dataset import FeaturesOfAudio, short_reason
    from asr_core.data.storage import FlatFeaturesWriter

    cuts, path, opts = job
    features_of = FeaturesOfAudio(opts)
    done = Computed()
    with atomic_path(path) as tmp, FlatFeaturesWriter(str(tmp)) as writer:
        for cut in cuts:
            try:
                matrix = features_of(cut)
            except Exception as e:  # the readers raise many kinds; one bad file must not end the whole preparation
                done.dropped.append((cut.id, short_reason(e)))
                continue
            features = Features(
                type="kaldi-fbank",
                num_frames=matrix.shape[0],
                num_features=matrix.shape[1],
                frame_shift=0.01,
                sampling_rate=cut.sampling_rate,
                start=cut.start,
                duration=cut.duration,
                storage_type=writer.name,
                storage_path=str(path),
                storage_key=writer.write(cut.id, matrix),
                recording_id=cut.recording_id,
                channels=cut.channel,
            )
            done.cuts.append(fastcopy(cut, features=features))
    return done
