"""Work shared by several processes of this machine, or by a Dask cluster."""

import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Optional, TypeVar

import torch

from asr_core.utils.errors import UserError
from asr_core.utils.runtime import die_with_parent

if TYPE_CHECKING:
    from dask.distributed import Client

T = TypeVar("T")
R = TypeVar("R")
_DASK_TIMEOUT = 20  # seconds; a scheduler in the same cluster answers within one


def process_map(
    function: Callable[[T], R], items: Iterable[T], nj: int, client: Optional["Client"] = None
) -> Iterator[R]:
    """Map ``function`` over ``items`` with ``nj`` processes; yield the results in order.

    Args:
      function: a function at the top level of a module.
      items: its arguments.
      nj: number of processes; 1: work in this one.
      client: a ``dask.distributed.Client``, whose cluster then works instead of local processes.

    Raises:
      UserError: a process was killed, as happens when memory is full.
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
                "a worker process was killed; if memory ran out, "
                "start the same command again with a smaller --nj"
            ) from e
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def dask_client(address: str) -> "Client":
    """Connect to the Dask scheduler at ``address``, e.g. ``tcp://node1:8786``.

    Raises:
      UserError: Dask is not installed, or no scheduler answers there.
    """
    try:
        from dask.distributed import Client
    except ImportError as e:
        raise UserError("--dask-scheduler needs Dask: pip install 'dask[distributed]'") from e
    try:
        return Client(address, timeout=_DASK_TIMEOUT)
    except (OSError, ValueError) as e:
        raise UserError(f"no Dask scheduler answers at {address}: {e}") from e


def _start_worker() -> None:
    die_with_parent(signal.SIGKILL)
    torch.set_num_threads(1)
