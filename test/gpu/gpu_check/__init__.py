"""The parts of test/gpu/check.py, which share some files with the tests and benchmarks."""

import sys
from pathlib import Path

_TEST = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_TEST.parent), *(str(_TEST / folder) for folder in ("helpers", "bench"))]
