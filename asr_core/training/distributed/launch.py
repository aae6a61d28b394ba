"""Launching the processes of a training run and supervising them.

The launching process does nothing else, so this module imports neither torch nor lhotse.
"""

import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Callable, List, Optional, Sequence

from asr_core.training.distributed.stop_signal import stop_signals
from asr_core.training.options import LoopOptions
from asr_core.utils.console import lasting_console, outlive_output
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, from_params
from asr_core.utils.runtime import end_with_parent, setup_cpu

# Exit statuses of a rank for its launcher, distinct from 1 and 2, which Python and argparse use.
EXIT_REPORTED = 3  # the user's mistake was printed by this rank or by another one
EXIT_PEER_LOST = 4  # another rank no longer answers; that rank is the one to report

# Seconds that the other ranks get to notice a dead one by themselves, close their files and exit.
# Lost connections are noticed within milliseconds; the rest is for ranks that are in the middle of
# a step.
_GRACE_SECONDS = 5.0
_ORPHAN_SECONDS = 120.0  # for the last checkpoint of a rank whose launcher was killed
_DEFAULT_PORT = 12354  # the default of --master-port; stands for any free one
_POLL_SECONDS = 0.5  # how often the launcher looks at its deadline while no rank exits


@dataclass(frozen=True)
class RankInfo:
    """The place of one process in the group of processes that train together.

    Attributes:
      rank: number of this process among all machines, from 0.
      size: number of processes on all machines.
      local_rank: number of this process on its machine, which is also the number of its GPU.
      local_size: number of processes on this machine.
      address: address of rank 0, as ``init_method`` of ``torch.distributed``.
      spawned: whether :func:`spawn` started this process and reports which rank died.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    address: str = "env://"
    spawned: bool = False


def rank_info_from_environment(world_size: int = 1) -> Optional[RankInfo]:
    """Read the variables that torchrun, or another launcher with the same convention, sets.

    If torchrun dies, this process stops as after SIGTERM.

    Args:
      world_size: value of ``--world-size``.

    Returns:
      The place of this process, or None if no launcher started it.

    Raises:
      UserError: ``world_size`` contradicts the launcher.
    """
    env = os.environ
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(env):
        return None
    _from_environment("MASTER_PORT", at_least=1, below=65536)
    size = _from_environment("WORLD_SIZE", at_least=1)
    if world_size not in (1, size):
        raise UserError(
            f"--world-size {world_size}, but the launcher started {size} processes: leave --world-size out"
        )
    rank = _from_environment("RANK", below=size)
    if "TORCHELASTIC_RUN_ID" in env:  # torchrun does not stop its workers when it is killed
        end_with_parent(os.getppid(), _ORPHAN_SECONDS)
    local_size = _from_environment("LOCAL_WORLD_SIZE", size, at_least=1)
    return RankInfo(
        rank=rank,
        size=size,
        local_rank=_from_environment("LOCAL_RANK", rank, below=local_size),
        local_size=local_size,
    )


def _from_environment(
    name: str, default: Optional[int] = None, at_least: int = 0, below: Optional[int] = None
) -> int:
    """Read a whole number that a launcher sets.

    Raises:
      UserError: it is none, or out of range.
    """
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < at_least or (below is not None and int(text) >= below):
        limit = f"at least {at_least}" if below is None else f"from {at_least} to {below - 1}"
        raise UserError(
            f"the environment variable {name} is {text!r} instead of a whole number {limit}: "
            "torchrun sets it; without torchrun unset RANK"
        )
    return int(text)


def free_port(wanted: int = 0) -> int:
    """Return port ``wanted`` if it is free on this machine, otherwise another free port.

    Raises:
      UserError: no port is free.
    """
    for port in (wanted, 0):
        with socket.socket() as s:
            # Connections of an earlier run that linger in TIME_WAIT do not disturb a new listener.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise UserError("no free port on this machine")


def launch(train: Callable[..., int], args: Sequence[object], params: AttributeDict) -> int:
    """Train in this process, as one of those that a launcher started, or in new processes; return
    the exit status.

    Args:
      train: called in each of them as ``train(rank, params, *args)``; returns an exit status. It
        can be pickled.
      args: its further arguments.
      params: all options.

    Raises:
      UserError: an option makes no sense.
    """
    opts = from_params(LoopOptions, params)
    opts.validate()
    outlive_output()
    rank = rank_info_from_environment(opts.world_size)
    if rank is None and opts.world_size > 1:
        return spawn(_run_rank, (train, args, params), opts.world_size, opts.master_port)
    return _run_rank(rank or RankInfo(), train, args, params)


def _run_rank(
    rank: RankInfo, train: Callable[..., int], args: Sequence[object], params: AttributeDict
) -> int:
    params["world_size"] = rank.size  # a launcher's number may differ from the option's
    setup_cpu(from_params(LoopOptions, params).num_threads, rank.local_size)
    return train(rank, params, *args)


def spawn(body: Callable[..., int], args: Sequence[object], size: int, port: int) -> int:
    """Run ``body(rank_info, *args)`` in ``size`` processes of this machine.

    Signals are forwarded to all ranks, which then agree on where to stop; the second signal of a
    kind kills them. If a rank dies, the others are ended within seconds. If this process dies, the
    ranks stop as after SIGTERM.

    Args:
      body: a picklable function that returns an exit status.
      args: its further arguments.
      size: number of processes.
      port: port of rank 0. The default stands for any free one, since runs that are started at the
        same moment would meet there.

    Returns:
      The exit status of the whole.

    Raises:
      UserError: a rank died or did not answer, or ``port`` is taken.
    """
    chosen = free_port(0 if port == _DEFAULT_PORT else port)
    if chosen != port != _DEFAULT_PORT:
        raise UserError(f"--master-port {port} is taken on this machine: give another one, or none")
    if sys.platform.startswith("linux"):
        # Gloo would look up the host's name, which need not resolve to this machine.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    context = get_context("spawn")
    ranks: List[BaseProcess] = []
    for rank in range(size):
        info = RankInfo(
            rank=rank,
            size=size,
            local_rank=rank,
            local_size=size,
            address=f"tcp://127.0.0.1:{chosen}",
            spawned=True,
        )
        process_args = (os.getpid(), info, body, *args)
        ranks.append(context.Process(target=_rank_main, args=process_args, name=f"rank {rank}"))
    # Ranks inherit this: until they handle Ctrl-C themselves, the launcher alone forwards it.
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for process in ranks:
            process.start()
        return _Supervisor(ranks).run()
    finally:
        for process in ranks:
            if process.is_alive():
                process.kill()
        signal.signal(signal.SIGINT, previous)


def _rank_main(launcher_pid: int, rank_info: RankInfo, body: Callable[..., int], *args: object) -> None:
    end_with_parent(launcher_pid, _ORPHAN_SECONDS)
    if os.getppid() != launcher_pid:  # it died before end_with_parent could take effect
        os._exit(EXIT_PEER_LOST)
    from tqdm import tqdm

    # tqdm's default lock is a semaphore of the system, which would be reported as leaked.
    tqdm.set_lock(threading.RLock())
    with lasting_console(outlive_output=True):
        status = body(rank_info, *args)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed. The interpreter's own clean-up takes seconds, and GPU libraries may hang
    # in it.
    os._exit(status)


class _Supervisor:
    """Waits for the ranks, forwards signals to them, and ends all of them if one dies.

    Args:
      ranks: started processes.

    Attributes:
      signum: the signal that was forwarded last, or 0.
      stuck: ranks that had to be killed because they did not exit after another one had failed.
    """

    def __init__(self, ranks: Sequence[BaseProcess]) -> None:
        self.ranks = ranks
        self.signum = 0
        self.stuck: List[BaseProcess] = []

    def run(self) -> int:
        """Wait until all ranks have exited; return the exit status of the whole.

        Raises:
          UserError: a rank died or hung; names it.
        """
        previous = {signum: signal.signal(signum, self._forward) for signum in stop_signals()}
        try:
            failed = self._wait()
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)
        if self.signum:
            return 128 + self.signum
        if failed is None:
            return max(_exit_status(process) for process in self.ranks)
        status = _exit_status(failed)
        if status == EXIT_REPORTED:
            return 1
        if status == EXIT_PEER_LOST:
            names = [f"{process.name} (process {process.pid})" for process in self.stuck]
            raise UserError(
                f"{', '.join(names) or 'one of the processes'} did not answer the others in time "
                "(--dist-timeout), so all were ended; the log files say more"
            )
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise UserError(
            f"{failed.name} (process {failed.pid}) {how}, so the other processes were ended too; "
            "the same command continues from the last checkpoint"
        )

    def _wait(self) -> Optional[BaseProcess]:
        """Wait until all ranks have exited; after a failure, kill those that do not exit in time.

        Returns:
          The rank that failed, preferably one that did not merely lose another, or None.
        """
        failed: List[BaseProcess] = []
        deadline = math.inf
        alive = list(self.ranks)
        while alive:
            connection.wait([process.sentinel for process in alive], timeout=_POLL_SECONDS)
            exited = [process for process in alive if process.exitcode is not None]
            alive = [process for process in alive if process not in exited]
            bad = [process for process in exited if not _is_clean_exit(_exit_status(process))]
            if time.monotonic() < deadline:  # after it, ranks fail because they are killed here
                failed += bad
            if bad:
                deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
            if time.monotonic() > deadline:
                self.stuck += [process for process in alive if process not in self.stuck]
                for process in alive:
                    process.kill()
        return min(failed, key=lambda process: _exit_status(process) == EXIT_PEER_LOST, default=None)

    def _forward(self, signum: int, frame: Optional[FrameType]) -> None:
        """Ask all ranks to stop, or kill them if the same signal arrives again.

        They always get SIGTERM, because a Ctrl-C at the terminal has reached them already.
        """
        again = self.signum == signum
        self.signum = signum
        for process in self.ranks:
            if process.is_alive():
                if again:
                    process.kill()
                else:
                    process.terminate()


def _exit_status(process: BaseProcess) -> int:
    """Return the exit status of a process that has ended; negative if a signal killed it."""
    assert process.exitcode is not None
    return process.exitcode


def _is_clean_exit(status: int) -> bool:
    return status == 0 or status - 128 in (signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", -1))
