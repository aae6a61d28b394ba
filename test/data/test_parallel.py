"""Work by several processes: results in order, and a killed process is one line."""

import os
import signal

import pytest

from asr_core.data.parallel import process_map
from asr_core.utils.errors import UserError


def square(x):
    return x * x


def die_at_three(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.mark.parametrize("nj", [1, 3])
def test_results_come_in_order(nj):
    assert list(process_map(square, range(20), nj)) == [x * x for x in range(20)]


def test_a_killed_process_is_an_error_that_says_what_to_do():
    with pytest.raises(UserError, match="smaller --nj"):
        list(process_map(die_at_three, range(8), 2))


def test_a_cluster_works_in_place_of_processes():
    class Future:
        def __init__(self, value):
            self.value = value

        def result(self):
            return self.value

    class Client:
        def map(self, function, items, pure):
            assert not pure  # the same call twice is to be done twice
            return [Future(function(x)) for x in items]

    assert list(process_map(square, [1, 2, 3], 4, Client())) == [1, 4, 9]
