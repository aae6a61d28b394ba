"""What processes must have in common to train together, compared before they exchange anything."""

import datetime
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Dict, List, Mapping, Sequence, Tuple

import torch
import torch.distributed as dist

import asr_core
from asr_core.training.distributed.launch import RankInfo
from asr_core.utils.errors import UserError
from asr_core.utils.files import digest_of
from asr_core.utils.options import flag
from asr_core.utils.paths import PathLike

# Options that may differ: how one machine does its share, and where it finds what all share.
_OWN = {
    "world_size", "master_port", "dist_timeout", "num_threads", "num_workers", "exp_dir", "manifest_dir",
    "bpe_model", "shar_dir", "noise_manifest", "finetune_ckpt", "lm_data", "lm_data_valid", "tensorboard",
}  # fmt: skip
_READ_SECONDS = 10.0  # for the other ranks to read the verdict, before rank 0 ends the store
_PREFIX = "asr_core/agreement"


class Disagreement(UserError):
    """Processes that were started to train together have different options or versions.

    Attributes:
      ranks: the first two that differ, who say so.
    """

    ranks: Tuple[int, ...] = ()


def open_store(rank: RankInfo, timeout: float) -> "dist.Store":
    """Open the key-value store of all processes, without waiting for them.

    It is that of torchrun where torchrun keeps one, and otherwise rank 0's.
    """
    elastic = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if rank.address == "env://":
        host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
        serves = rank.rank == 0 and not elastic
    else:
        host, _, port = rank.address.partition("//")[2].rpartition(":")
        serves = rank.rank == 0
    store = dist.TCPStore(
        host,
        int(port),
        is_master=serves,
        timeout=datetime.timedelta(seconds=timeout),
        wait_for_workers=False,
    )
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def facts_of(params: Mapping[str, object], rank: RankInfo, cuda: bool) -> Dict[str, str]:
    """Return what must be the same for all processes, in words, by name."""
    options = {flag(name): str(value) for name, value in sorted(params.items()) if name not in _OWN}
    return {
        "number of processes": str(rank.size),
        "asr_core": asr_core.__version__,
        "code": _digest_of_code(),
        "torch": torch.__version__,
        "device": "cuda" if cuda else "cpu",
        **options,
    }


def content_fact(path: PathLike) -> str:
    """Return a short digest of a file's content; the name itself where there is no such file."""
    return digest_of(path)[:12] if os.path.isfile(path) else str(path)


def first_difference(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Return the name of the first fact that differs, or an empty string."""
    return next((name for name in [*one, *other] if one.get(name) != other.get(name)), "")


def agree(store: "dist.Store", rank: RankInfo, facts: Mapping[str, str], timeout: float) -> None:
    """Compare the facts of all processes; each of them calls this.

    Args:
      store: the key-value store that all processes see.
      rank: the place of this process.
      facts: see :func:`facts_of`.
      timeout: seconds to wait for a process.

    Raises:
      Disagreement: naming the first fact that differs and both values; on all ranks.
      RuntimeError: a process did not come in time.
    """
    store.set_timeout(datetime.timedelta(seconds=timeout))
    if rank.rank == 0:
        verdict = _compare(store, rank.size, facts)
        store.set(f"{_PREFIX}/verdict", json.dumps(verdict))
        if verdict:
            _wait_for_readers(store, rank.size)
    else:
        store.set(f"{_PREFIX}/{rank.rank}", json.dumps(dict(facts)))
        verdict = json.loads(store.get(f"{_PREFIX}/verdict"))
        store.add(f"{_PREFIX}/readers", 1)
    if verdict:
        error = Disagreement(str(verdict[0]))
        error.ranks = (0, int(str(verdict[1])))
        raise error


def _compare(store: "dist.Store", size: int, facts: Mapping[str, str]) -> List[object]:
    """Return what differs and the rank, or nothing."""
    for other in range(1, size):
        theirs = json.loads(store.get(f"{_PREFIX}/{other}"))
        name = first_difference(facts, theirs)
        if name:
            return [_sentence(name, facts, theirs, other), other]
    return []


def refuse_differences(facts: Sequence[Mapping[str, str]]) -> None:
    """Check that the facts of all ranks, in their order, are those of rank 0.

    Raises:
      UserError: naming the first fact that differs and both values.
    """
    for rank, theirs in enumerate(facts):
        name = first_difference(facts[0], theirs)
        if name:
            raise UserError(_sentence(name, facts[0], theirs, rank))


def _sentence(name: str, ours: Mapping[str, str], theirs: Mapping[str, str], rank: int) -> str:
    here, there = ours.get(name, "missing"), theirs.get(name, "missing")
    return f"the processes differ in {name}: {here} on rank 0, {there} on rank {rank}; make them the same"


def _wait_for_readers(store: "dist.Store", size: int) -> None:
    """Give the others the time to read why all end."""
    end = datetime.datetime.now() + datetime.timedelta(seconds=_READ_SECONDS)
    while store.add(f"{_PREFIX}/readers", 0) < size - 1 and datetime.datetime.now() < end:
        time.sleep(0.05)


def _digest_of_code() -> str:
    """Return a digest of the library's source files."""
    root = Path(asr_core.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
