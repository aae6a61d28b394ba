"""Every number and every path of every program's command line, wrong in turn: hundreds of lines.

Each must work, or end with one line that says why. Each runs in a fork, with a limit of time and
memory; ``FUZZ`` in the environment selects programs by the start of their lines.
"""

import os

import pytest
from command_lines import fuzzed_numbers, fuzzed_paths, run
from command_world import LINES, build, lines, preload

pytestmark = pytest.mark.slow
SELECTED = [line for line in lines(LINES) if str(line).startswith(os.environ.get("FUZZ", ""))]
SEARCHES = ("decode", "ctc_decode", "streaming_decode", "transcribe")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    preload()
    build(folder, tmp_path_factory.mktemp("scratch"))
    return folder


@pytest.mark.parametrize("line", SELECTED, ids=str)
def test_a_wrong_value_is_refused_in_one_line_or_works(line, world, tmp_path):
    assert run(line, world, tmp_path).status == 0
    told = []
    first = next(other for other in SELECTED if other.program == line.program)
    numbers = line == first or line.program in SEARCHES  # training takes its numbers alike on all its lines
    for fuzzed in (*(fuzzed_numbers(line) if numbers else ()), *fuzzed_paths(line)):
        outcome = run(fuzzed, world, tmp_path)
        if outcome.complaint:
            told.append(f"{outcome.complaint}: {fuzzed}\n{outcome.err[-600:]}")
    assert not told, "\n\n".join(told)
