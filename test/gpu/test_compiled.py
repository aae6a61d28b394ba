"""Triton compiles every kernel for real cards, which its interpreter does not show."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
PROGRAM = Path(__file__).parent / "gpu_check/compiled.py"


def compiled(*options):
    """The rows of the table, once all kernels compiled."""
    done = subprocess.run([sys.executable, str(PROGRAM), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    return {row[0]: [int(cell) for cell in row[1:]] for row in rows}


@pytest.mark.slow  # test/ops/gpu/test_compilation.py compiles one of each
def test_all_kernels_compile_for_an_h100():
    rows = compiled("--dtypes", "bfloat16")
    assert {"_swoosh_forward", "_weights_forward", "_recursion"} <= rows.keys()
    # a kernel that keeps its blocks in local memory would be slower than the plain form
    assert max(local for _, _, local, _ in rows.values()) <= 256
    assert all(variants >= 1 and registers > 8 for variants, registers, _, _ in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize("arch", [75, 80, 90, 100])
def test_in_all_types_for_other_cards(arch):
    # Turing has no bfloat16
    compiled("--arch", str(arch), "--dtypes", "float32,float16" + ("" if arch == 75 else ",bfloat16"))
