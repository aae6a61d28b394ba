"""Logging: one file per run and rank; only the first rank writes to the console what is no warning."""

import logging
import re

import pytest

from asr_core.utils.errors import UserError
from asr_core.utils.log import setup_logger


@pytest.fixture(autouse=True)
def root_logger_as_before():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(capsys, **kwargs):
    """The lines on the console of an info and a warning."""
    setup_logger(**kwargs)
    logging.info("progress")
    logging.warning("trouble")
    return capsys.readouterr().err.splitlines()


def test_the_console_shows_where_a_line_comes_from(capsys):
    lines = logged(capsys)
    assert len(lines) == 2
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO \[test_log.py:\d+\] progress$", lines[0])


def test_higher_ranks_write_everything_to_their_file_and_warnings_to_the_console(capsys, tmp_path):
    lines = logged(capsys, prefix=tmp_path / "log/run", rank=1, world_size=2)
    assert len(lines) == 1 and "(1/2) trouble" in lines[0]
    (path,) = (tmp_path / "log").iterdir()
    assert re.fullmatch(r"run-\d{4}(-\d\d){5}-1", path.name)
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["progress", "trouble"]


def test_a_second_call_replaces_the_first(capsys):
    logged(capsys)
    assert len(logged(capsys)) == 2


@pytest.mark.parametrize("name", ["no-folder/greedy_search/log", "no-folder/log", f"{'x' * 300}"])
def test_a_log_that_cannot_be_written_is_one_line(tmp_path, name):
    """As in the folder of a model that is shared read-only."""
    (tmp_path / "no-folder").touch()
    with pytest.raises(UserError, match=r"^cannot write the log .*; make its folder writable, or copy it$"):
        setup_logger(tmp_path / name)
