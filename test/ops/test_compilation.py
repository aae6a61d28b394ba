"""What is told when kernels are compiled, and compiling them beforehand."""

import logging
import os
import subprocess
import sys

import pytest

from asr_core.ops import compile_kernels
from asr_core.ops.rnnt import numba_band
from asr_core.utils import compilation
from asr_core.utils.compilation import announce_compilation


@pytest.fixture
def few(monkeypatch):
    """Only one kernel to compile, fresh in this process."""
    kernel = numba_band.pruned_scores
    fresh = type(kernel)(kernel._function, numba_band.BandRows)
    monkeypatch.setattr(compile_kernels, "_kernels", lambda: iter([fresh]))
    return fresh


PROGRAM = """
import sys
from asr_core.ops.rnnt import numba_pruning
{before}
numba_pruning.gather_contexts.compile()
print("compiled", file=sys.stderr)
"""


def run(folder, before=""):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)], env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0
    return told.stderr.splitlines()


def test_compiling_is_told_before_it_is_done_and_only_then(tmp_path):
    first = run(tmp_path)
    assert first[-1] == "compiled"
    assert "compiling kernels for this CPU, once" in first[0] and "gather_contexts" in first[0]
    assert run(tmp_path) == ["compiled"]  # from the cache


def test_a_program_that_logs_logs_it(few, caplog, monkeypatch):
    monkeypatch.setattr("numba.core.caching.FunctionCache.load_overload", lambda *args: None)
    monkeypatch.setattr("numba.core.caching.FunctionCache.save_overload", lambda *args: None)
    monkeypatch.setattr(announce_compilation(), "done", 0)
    monkeypatch.setattr(compilation, "_PAUSE", 0.0)
    with caplog.at_level(logging.INFO):
        said = compile_kernels.compile_kernels(lambda: None)
    assert "compiling kernels for this CPU" in caplog.text and "pruned_scores" in caplog.text
    assert said.startswith("all kernels are ready, 1 of them compiled in")


def test_all_kernels_are_found():
    names = {kernel.__name__ for kernel in compile_kernels._kernels()}
    assert {"simple_lattice", "band_lattice", "pruned_gradient", "prune_ranges"} <= names and len(names) > 20


def test_without_numba(monkeypatch):
    monkeypatch.setattr(compile_kernels.dispatch, "HAS_NUMBA", False)
    with pytest.raises(compile_kernels.UserError, match="numba"):
        compile_kernels.compile_kernels(lambda: None)
