"""Exit statuses and messages of programs."""

import errno

import pytest

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError


def raising(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    "error, status, message",
    [
        (UserError("no such\n  file: x"), 1, "error: no such file: x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_mistakes_end_the_process_with_a_line(capsys, error, status, message):
    with pytest.raises(SystemExit) as stop:
        run_program(raising(error))
    assert stop.value.code == status
    assert capsys.readouterr().err == message


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_program(lambda: 1 / 0)


def test_a_program_that_works_just_returns(capsys):
    run_program(lambda: print("done"))
    assert capsys.readouterr().out == "done\n"


def test_a_full_disk_within_a_library_is_one_line(capsys):
    def write():
        raise OSError(errno.ENOSPC, "No space left on device", "shard.tar")

    with pytest.raises(SystemExit) as ended:
        run_program(write)
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "error: No space left on device: shard.tar; what was complete before remains\n"
    )
