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

from gpu_check import report
from gpu_check.parts import CARD, RESULTS, Part
from gpu_check.setup import Setup
from gpu_check.worker import POISONED

_POLL = 0.1


class Limits(NamedTuple):
    """Seconds of all parts together, and of each (0: its own); parts that run side by side."""

    total: float
    per_part: float
    jobs: int


class Run:
    """One run of the check.

    Args:
      setup: sizes and folders.
      limits: of time.
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
        self.results: Dict[str, Any] = {"note": note, "small": setup.small, "parts": {}}
        self.children: Dict[str, "subprocess.Popen[bytes]"] = {}
        self.lock = threading.Lock()
        self.stopped = False

    def all(self, parts: Sequence[Part]) -> int:
        """Run the parts; return 1 if anything is red, else 0."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        try:
            for stage in sorted({part.stage for part in parts}):
                mine = [part for part in parts if part.stage == stage]
                with ThreadPoolExecutor(self.limits.jobs if stage in (CARD, RESULTS) else 1) as pool:
                    list(pool.map(self.part, mine))
        except KeyboardInterrupt:
            self._stop()
        self._write()
        red = sum(row["ok"] is False for part in self.results["parts"].values() for row in part["rows"])
        print(report.summary(self.results))
        print(f"{red} red; see {self.setup.out / 'check.md'}")
        return 1 if red or self.stopped or not self.results["parts"] else 0

    def _stop(self) -> None:
        self.stopped = True
        for child in list(self.children.values()):
            _kill(child)

    def left(self) -> float:
        """Return the seconds left of the whole run."""
        return 0.0 if self.stopped else self.limits.total - (time.monotonic() - self.began)

    def part(self, part: Part) -> None:
        """Run one part to its end or its limit."""
        began = time.monotonic()
        limit = self.limits.per_part or part.limit * (4.0 if self.setup.small else 1.0)
        deadline = began + min(limit, self.left())
        rows: Dict[str, Dict[str, Any]] = {}
        plan: Optional[List[str]] = None
        log = self.setup.work / f"{part.name}.log"
        while time.monotonic() < deadline and (plan is None or set(plan) - set(rows)):
            plan, status, current = self._process(part, rows, deadline, log)
            if plan is None:
                rows["start"] = _red(f"{_reason(status)}: {_tail(log)}")
                break
            if current is not None:
                rows[current] = _red(f"{_reason(status)}: {_tail(log)}")
            elif status not in (0, POISONED, "time") and set(plan) - set(rows):
                rows["end"] = _red(f"{_reason(status)}: {_tail(log)}")
                break
        for name in plan or ["start"]:
            rows.setdefault(name, _red("not reached within the time limit"))
        with self.lock:
            self.results["parts"][part.name] = {
                "about": part.about,
                "seconds": round(time.monotonic() - began, 1),
                "rows": [{"item": name, **row} for name, row in rows.items()],
            }
            self._write()
            print(report.line(part.name, self.results["parts"][part.name]), flush=True)

    def _process(self, part: Part, rows: Dict[str, Dict[str, Any]], deadline: float, log: Path) -> Any:
        """Run one process of a part; add what it finds to ``rows``.

        Returns:
          The names of the part's items (None: it did not get so far), the exit status, and the item
          in which the process ended.
        """
        records = self.setup.work / f"{part.name}.{len(rows)}.jsonl"
        records.unlink(missing_ok=True)
        places = ["--out", str(self.setup.out), "--work-dir", str(self.setup.work)]
        options = ["--work", part.name, "--records", str(records), "--skip", json.dumps(list(rows))]
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
        item_limit = part.item_limit * (4.0 if self.setup.small else 1.0)
        plan, current, since, read = None, None, time.monotonic(), 0
        while True:
            ended = child.poll() is not None
            lines = records.read_text(encoding="utf-8").splitlines() if records.exists() else []
            for content in map(json.loads, lines[read:]):
                if "plan" in content:
                    plan = content["plan"]
                elif content["state"] == "begun":
                    current, since = content["item"], time.monotonic()
                else:
                    current, rows[content["item"]] = None, content["row"]
            read = len(lines)
            if ended:
                break
            now = time.monotonic()
            if now > deadline or self.stopped or (current is not None and now - since > item_limit):
                break
            time.sleep(_POLL)
        _kill(child)
        status = child.wait()
        return plan, ("time" if not ended else status), current

    def _write(self) -> None:
        self.results["seconds"] = round(time.monotonic() - self.began, 1)
        report.write(self.results, self.setup)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _red(note: str) -> Dict[str, Any]:
    return {"ok": False, "note": note}


def _reason(status: Any) -> str:
    if status == "time":
        return "did not end in time"
    return f"killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return " | ".join(line.strip()[:160] for line in lines[-4:])
