"""Starting the processes that train together, and watching over them; light, because the watching process does no more."""

import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing import connection, get_context
from types import FrameType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from asr_core.utils.errors import UserError
from asr_core.utils.runtime import die_with_parent

EXIT_REPORTED, EXIT_PEER_LOST = (
    3,
    4,
)  # exit statuses of a rank whose mistake is on the screen already, and of one that found others gone
_GRACE = 5.0  # seconds in which ranks may end by themselves after one of them has died
_USUAL_PORT = 12354


class RankInfo(NamedTuple):
    """The place of one process among those that train together.

    Attributes:
      rank, size: among all machines.
      local_rank, local_size: on this machine.
      address: where rank 0 listens, as torch.distributed's ``init_method``.
      watched: our own launcher watches over this process and says who died.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "env://"
    watched: bool = False


def seat_from_environment(world_size: int = 1) -> Optional[RankInfo]:
    """The place that torchrun, or another launcher that sets the same variables, gave to this process; None without one.

    If torchrun dies, this process is to stop as if told by SIGTERM.

    Args:
      world_size: what ``--world-size`` says.

    Raises:
      UserError: the environment has another number of processes.
    """
    env = os.environ
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(env):
        return None
    size = int(env["WORLD_SIZE"])
    if world_size not in (1, size):
        raise UserError(
            f"--world-size {world_size}, but the launcher started {size} processes: leave --world-size out"
        )
    rank = int(env["RANK"])
    if "TORCHELASTIC_RUN_ID" in env:  # torchrun, which does not see to this itself
        die_with_parent(signal.SIGTERM)
    return RankInfo(rank, size, int(env.get("LOCAL_RANK", rank)), int(env.get("LOCAL_WORLD_SIZE", size)))


def free_port(wanted: int = 0) -> int:
    """``wanted`` if nobody listens there on this machine, or else a free port."""
    for port in (wanted, 0):
        with socket.socket() as s:
            s.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # connections of an earlier run that linger do no harm
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return s.getsockname()[1]
    raise UserError("no free port on this machine")


def spawn(body: Callable[..., int], args: Sequence[Any], size: int, port: int) -> int:
    """Run ``body(seat, *args)`` in ``size`` processes of this machine; return the exit status of the whole.

    Signals go on to all ranks, which then agree on where to stop; the second one of a kind kills them. If a rank dies, the others
    end within seconds. If this process dies, the ranks stop as if told by SIGTERM.

    Args:
      body: a function that can be pickled; returns an exit status.
      args: its further arguments.
      size: number of processes.
      port: where rank 0 listens; the usual one gives way to another where it is taken.
    """
    chosen = free_port(port)
    if chosen != port:
        if port != _USUAL_PORT:
            raise UserError(f"--master-port {port} is taken on this machine: give another one, or none")
        print(f"port {port} is taken: the processes meet at {chosen}", file=sys.stderr)
    if sys.platform.startswith("linux"):
        os.environ.setdefault(
            "GLOO_SOCKET_IFNAME", "lo"
        )  # host names do not always lead back to the own machine
    seats = [RankInfo(rank, size, rank, size, f"tcp://127.0.0.1:{chosen}", True) for rank in range(size)]
    context = get_context("spawn")
    ranks = [
        context.Process(target=_rank_main, args=(os.getpid(), seat, body, *args), name=f"rank {seat.rank}")
        for seat in seats
    ]
    old = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # inherited: while a rank starts, Ctrl-C reaches it through us alone
    try:
        for process in ranks:
            process.start()
        return _Watch(ranks).run()
    finally:
        for process in ranks:
            if process.is_alive():
                process.kill()
        signal.signal(signal.SIGINT, old)


def _rank_main(launcher: int, seat: RankInfo, body: Callable[..., int], *args: Any) -> None:
    die_with_parent(signal.SIGTERM)
    if os.getppid() != launcher:  # it died before it could be told
        os._exit(EXIT_PEER_LOST)
    from tqdm import tqdm

    tqdm.set_lock(
        threading.RLock()
    )  # the usual one is a semaphore of the system, which would be reported as left behind
    status = body(seat, *args)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(
        status
    )  # all is closed; the interpreter's clearing up takes seconds, and libraries of GPUs are known to hang in it


class _Watch:
    """Waits for ranks, passes signals on to them, ends all if one dies."""

    def __init__(self, ranks: List[Any]) -> None:
        self.ranks = ranks
        self.signum = 0
        self.stuck: List[Any] = []

    def run(self) -> int:
        """Wait for the end; return the exit status."""
        old: Dict[int, Any] = {s: signal.signal(s, self._pass_on) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            failed = self._wait()
        finally:
            for signum, handler in old.items():
                signal.signal(signum, handler)
        if self.signum:
            return 128 + self.signum
        if failed is None:
            return max(process.exitcode for process in self.ranks)
        if failed.exitcode == EXIT_PEER_LOST:
            who = (
                ", ".join(f"{process.name} (process {process.pid})" for process in self.stuck)
                or "one of the processes"
            )
            raise UserError(
                f"{who} did not answer the others in time (--dist-timeout), so all were ended; the log files say more"
            )
        if failed.exitcode != EXIT_REPORTED:
            how = (
                f"was killed by {signal.Signals(-failed.exitcode).name}"
                if failed.exitcode < 0
                else f"ended with status {failed.exitcode}"
            )
            raise UserError(
                f"{failed.name} (process {failed.pid}) {how}, so the other processes were ended too; "
                "the same command continues from the last checkpoint"
            )
        return 1

    def _wait(self) -> Optional[Any]:
        """Wait until all have ended; the one that failed, if any did, after ending the others."""
        failed: List[Any] = []
        deadline = math.inf
        alive = list(self.ranks)
        while alive:
            connection.wait([process.sentinel for process in alive], timeout=0.5)
            gone = [process for process in alive if process.exitcode is not None]
            alive = [process for process in alive if process not in gone]
            bad = [process for process in gone if not _is_clean_exit(process.exitcode)]
            if time.monotonic() < deadline:
                failed += bad
            if bad:
                deadline = min(deadline, time.monotonic() + _GRACE)
            if time.monotonic() > deadline:
                self.stuck += [process for process in alive if process not in self.stuck]
                for process in alive:
                    process.kill()
        return min(failed, key=lambda process: process.exitcode == EXIT_PEER_LOST, default=None)

    def _pass_on(self, signum: int, frame: Optional[FrameType]) -> None:
        again = self.signum == signum
        self.signum = signum
        for process in self.ranks:
            if (
                process.is_alive()
            ):  # always SIGTERM, because at a terminal a Ctrl-C has reached the ranks already
                process.kill() if again else process.terminate()


def _is_clean_exit(status: int) -> bool:
    return status in (0, 128 + signal.SIGTERM, 128 + signal.SIGINT)
