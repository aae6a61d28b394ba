"""Runs the parts, each in processes of its own, and writes the results as they come.

A part is a list of items. Its process records each item when it begins and when it ends. If the
process dies, hangs or loses the GPU, the item in progress is red, and a new process goes on with
the next one.
"""

import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from gpu_check import report, targets
from gpu_check.parts import ALONE, ENDS, Part
from gpu_check.setup import Setup
from gpu_check.worker import POISONED

_POLL = 0.1
_SLOWER = 4.0  # limits of parts and items in a rehearsal


class Limits(NamedTuple):
    """Seconds of all parts together, and of each (0: its own); parts that run side by side."""

    total: float
    per_part: float
    jobs: int


class Progress:
    """What is known of a part.

    Attributes:
      part: the part.
      rows: what its items found, by name.
      plan: the names of its items, once its process has told them.
      began: when it did.
    """

    def __init__(self, part: Part) -> None:
        self.part, self.began = part, time.monotonic()
        self.rows: Dict[str, Dict[str, Any]] = {}
        self.plan: Optional[List[str]] = None

    def missing(self) -> List[str]:
        """Return the items of which nothing is known yet."""
        return [name for name in self.plan or ["start"] if name not in self.rows]

    def entry(self) -> Dict[str, Any]:
        """Return what the results say of the part."""
        return {
            "about": self.part.about,
            "seconds": round(time.monotonic() - self.began, 1),
            "rows": [{"item": name, **row} for name, row in self.rows.items()],
        }


class Run:
    """One run of the check.

    Args:
      setup: sizes and folders.
      limits: of time, from now on.
      command: the beginning of a part's command line.
      environment: of the parts' processes.
      note: what went wrong before.
    """

    def __init__(
        self, setup: Setup, limits: Limits, command: Sequence[str], environment: Dict[str, str], note: str
    ) -> None:
        self.setup, self.limits = setup, limits
        self.command, self.environment = list(command), environment
        self.began = time.monotonic()
        self.end = self.began + limits.total  # of the present stage
        self.results: Dict[str, Any] = {"note": note, "small": setup.small, "parts": {}}
        self.children: Dict[str, "subprocess.Popen[bytes]"] = {}
        self.lock = threading.Lock()
        self.stopped = False

    def all(self, parts: Sequence[Part]) -> int:
        """Run the parts; return 1 if anything is red, not reached or slower than it should be."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        stages = sorted({part.stage for part in parts})
        try:
            for stage in stages:
                share = 1.0 if stage == stages[-1] else ENDS[stage]
                self.end = self.began + share * self.limits.total
                mine = [part for part in parts if part.stage == stage]
                with ThreadPoolExecutor(1 if stage in ALONE else self.limits.jobs) as pool:
                    list(pool.map(self.part, mine))
        except KeyboardInterrupt:
            self._stop()
        self._write(logs=True)
        print(report.summary(self.results))
        return self._status()

    def _status(self) -> int:
        """Print the counts of what is not as it should be, and return the exit status."""
        rows = [row for part in self.results["parts"].values() for row in part["rows"]]
        red = sum(row["ok"] is False for row in rows)
        late = sum("late" in row for row in rows)
        slow = [] if self.setup.small else targets.missed(self.results["parts"])
        for figure in slow:
            print(f"MISSED: {figure}")
        print(f"{red} red, {late} not reached, {len(slow)} missed; see {self.setup.out / 'check.md'}")
        return 1 if red or late or slow or self.stopped or not rows else 0

    def _stop(self) -> None:
        self.stopped = True
        for child in list(self.children.values()):
            _kill(child)

    def part(self, part: Part) -> None:
        """Run one part to its end or its limit."""
        found = Progress(part)
        limit = self.limits.per_part or part.limit * (_SLOWER if self.setup.small else 1.0)
        deadline = min(found.began + limit, self.end)
        log = self.setup.work / f"{part.name}.log"
        while found.missing() and time.monotonic() < deadline and not self.stopped:
            status, current = self._process(found, deadline, log)
            late = status == "time" and (self.stopped or time.monotonic() >= deadline)
            if found.plan is None or current is not None:
                ended = f"{_reason(status)}: {_tail(log)}"
                found.rows[current or "start"] = _late(f"cut off: {ended}") if late else _red(ended)
            elif status not in (0, POISONED, "time") and found.missing():
                found.rows["end"] = _red(f"{_reason(status)}: {_tail(log)}")
                break
        for name in found.missing():
            found.rows[name] = _late("not reached within the time limit")
        self._publish(found, logs=True)
        print(report.line(part.name, found.entry()), flush=True)

    def _process(self, found: Progress, deadline: float, log: Path) -> Any:
        """Run one process of a part; add what it finds.

        Returns:
          The exit status, or "time", and the item in which the process ended.
        """
        part = found.part
        records = self.setup.work / f"{part.name}.{len(found.rows)}.jsonl"
        records.unlink(missing_ok=True)
        places = ["--out", str(self.setup.out), "--work-dir", str(self.setup.work)]
        options = ["--work", part.name, "--records", str(records), "--skip", json.dumps(list(found.rows))]
        with open(log, "ab") as stream:
            child = subprocess.Popen(
                [*self.command, *places, *options],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self.children[part.name] = child
        item_limit = part.item_limit * (_SLOWER if self.setup.small else 1.0)
        current, since, read = None, time.monotonic(), 0
        while True:
            ended = child.poll() is not None
            lines = records.read_text(encoding="utf-8").split("\n")[:-1] if records.exists() else []
            for content in map(json.loads, lines[read:]):
                if "plan" in content:
                    found.plan = content["plan"]
                elif content["state"] == "begun":
                    current, since = content["item"], time.monotonic()
                else:
                    current, found.rows[content["item"]] = None, content["row"]
                    self._publish(found)
            read = len(lines)
            if ended:
                break
            now = time.monotonic()
            if now > deadline or self.stopped or (current is not None and now - since > item_limit):
                break
            time.sleep(_POLL)
        _kill(child)
        status = child.wait()
        return ("time" if not ended else status), current

    def _publish(self, found: Progress, logs: bool = False) -> None:
        """Add what is known of a part to the results, and write them: whoever ends the check loses
        nothing.
        """
        with self.lock:
            self.results["parts"][found.part.name] = found.entry()
            self._write(logs)

    def _write(self, logs: bool) -> None:
        self.results["seconds"] = round(time.monotonic() - self.began, 1)
        report.write(self.results, self.setup, logs)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _red(note: str) -> Dict[str, Any]:
    return {"ok": False, "note": note}


def _late(note: str) -> Dict[str, Any]:
    return {"ok": None, "late": True, "note": note}


def _reason(status: Any) -> str:
    if status == "time":
        return "did not end in time"
    return f"killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return " | ".join(line.strip()[:160] for line in lines[-4:])
