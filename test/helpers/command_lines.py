"""Command lines with one wrong value each, run in forks of this process.

Every program has a valid line; ``{w}`` stands for the folder of its inputs (see ``command_world.py``),
``{o}`` for a new folder for its output, and ``{b}`` for a new one of files that no program can use.
A fuzzed line differs from the valid one in one value.
"""

import argparse
import contextlib
import importlib
import itertools
import os
import re
import resource
import shutil
import signal
import stat
import sys
import time
import traceback
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import pytest
from recipe_programs import Parsed

from asr_core.data.corpus import Corpus
from asr_core.utils.options import Parser

NUMBERS = ("0", "-1", "nan", "inf", str(2**63), str(10**12), "abc")
# What an input may be by mistake, by its name below the folder of inputs; None: the argument ''.
# ``null`` is a device like /dev/null, which a program that runs as root might replace.
INPUTS = ("text.txt", "empty", "binary", "folder", "missing", "null", None)
# What an output may be by mistake.
OUTPUTS = ("null", "null/x", "empty/x", "folder", None)
_MEMORY = 12 << 30  # bytes of address space
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


class Tones(Corpus):
    """The corpus of the valid lines."""

    name = "tones"
    defaults = {"num_workers": 0, "num_threads": 1, "device": "cpu"}


class Line(NamedTuple):
    """A command line: a program, with the name of what it takes as corpus, and its arguments."""

    program: str
    argv: Tuple[str, ...]

    def with_folders(self, world: Path, out: Path) -> List[str]:
        """Return the arguments, with folders put in for ``{w}``, ``{o}`` and ``{b}``."""
        folders = {"{w}": world, "{o}": out, "{b}": out / "bad"}
        argv = list(self.argv)
        for name, folder in folders.items():
            argv = [a.replace(name, str(folder)) for a in argv]
        return argv

    def __str__(self) -> str:
        return " ".join([self.program, *(a or "''" for a in self.argv)])


class Outcome(NamedTuple):
    """How a program ended.

    Attributes:
      status: its exit status; negative for a signal, None if it had to be stopped.
      out, err: what it wrote.
    """

    status: Optional[int]
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """What is wrong with this end; '' if the program worked, or said why not in one line."""
        if self.status is None:
            return "does not end"
        if self.status < 0:
            return f"ended by {signal.Signals(-self.status).name}"
        if "Traceback" in self.err or "Traceback" in self.out:
            return "traceback"
        if self.status not in (0, 1, 2):
            return f"status {self.status}"
        told = [
            line for line in self.err.splitlines() if line and not _LOG_LINE.match(line) and "\r" not in line
        ]
        if self.status != 0 and len([line for line in told if "error: " in line]) != 1:
            return f"{len(told)} lines of error"
        return ""


def call(program: str, argv: Sequence[str]) -> None:
    """Call the ``main`` of a program in this process."""
    module = importlib.import_module(f"asr_core.bin.{program}")
    corpus = (Tones,) if program in ("train", "finetune", "decode", "ctc_decode", "streaming_decode") else ()
    module.main(*corpus, argv=list(argv))


def run(line: Line, world: Path, scratch: Path, seconds: float = 60.0) -> Outcome:
    """Run a line in a fork of this process; its output folder is removed afterwards."""
    out = scratch / f"out-{os.getpid()}-{time.monotonic_ns()}"
    out.mkdir(parents=True)
    _write_bad_files(out / "bad")
    files = {name: out.with_suffix(f".{name}") for name in ("stdout", "stderr")}
    pid = os.fork()
    if pid == 0:
        _child(line, world, out, files)
    status = _wait(pid, seconds)
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files.values()]
    shutil.rmtree(out, ignore_errors=True)
    for path in files.values():
        path.unlink()
    return Outcome(status, *texts)


def _write_bad_files(folder: Path) -> None:
    (folder / "folder").mkdir(parents=True)
    (folder / "text.txt").write_text("one two three\nfour\n")
    (folder / "empty").touch()
    (folder / "binary").write_bytes(bytes(range(256)) * 40)
    try:
        os.mknod(folder / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except OSError:  # only root makes devices, and only root can replace /dev/null
        (folder / "null").symlink_to("/dev/null")


def _child(line: Line, world: Path, out: Path, files: Dict[str, Path]) -> None:
    """Run the line and end the process."""
    status = 1
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number, path in enumerate(files.values(), 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        # pytest has put its own objects there
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(out)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)  # the threads of this process' parent are gone
        call(line.program, line.with_folders(world, out))
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait(pid: int, seconds: float) -> Optional[int]:
    """Wait for a child; kill it, and what it has started, when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what it left behind
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def parser_of(line: Line) -> Parser:
    """Return the parser that the program makes for a line."""

    def stop(self, args=None, namespace=None):
        raise Parsed(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parser, "parse_args", stop)
        with pytest.raises(Parsed) as caught:
            call(line.program, line.argv)
    return caught.value.args[0]


def numeric_options(line: Line) -> List[str]:
    """Return the options of a line's program that take numbers."""
    return [action.option_strings[0] for action in numeric_actions(parser_of(line))]


def numeric_actions(parser: Parser) -> List[argparse.Action]:
    """Return the arguments of a parser that take numbers."""
    return [
        action
        for action in parser._actions
        if action.option_strings
        and action.choices is None
        and (action.type in (int, float) or action.metavar in ("INT", "FLOAT", "INT,..."))
    ]


def fuzzed_numbers(line: Line) -> Iterator[Line]:
    """Yield the line with each numeric option at each odd value."""
    for option, value in itertools.product(numeric_options(line), NUMBERS):
        yield Line(line.program, (*line.argv, f"{option}={value}"))


def fuzzed_paths(line: Line) -> Iterator[Line]:
    """Yield the line with each of its paths replaced by something that it is by mistake."""
    for place, argument in enumerate(line.argv):
        wrong = INPUTS if "{w}/" in argument else OUTPUTS if "{o}/" in argument else ()
        for path in wrong:
            path = "" if path is None else f"{{b}}/{path}"
            yield Line(line.program, (*line.argv[:place], path, *line.argv[place + 1 :]))
