"""Options: one definition gives the command line, its bounds, its help and the record in
checkpoints.
"""

import os
from dataclasses import dataclass
from typing import Optional, Tuple

import pytest

from asr_core.utils.errors import UserError
from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import OnlyWith
from asr_core.utils.options import Parser, add_options, check_values, from_params, option, params_of


@dataclass
class Sizes:
    """Sizes."""

    model_size: str = option(
        "", "Preset.", choices=["", "tiny", "big"], presets={"tiny": {"dims": "1,2", "layers": 3}, "big": {}}
    )
    dims: Tuple[int, ...] = option((4, 5), "Widths.", at_least=1)
    layers: int = option(7, "Layers.", at_least=1, at_most=9)
    factor: float = option(3.0, "Factor.", above=1, unless=0)
    limit: Optional[int] = option(None, "Limit.", at_least=1)


def parse(*argv):
    parser = Parser("A program")
    add_options(parser, Sizes)
    return params_of(parser.parse_args(list(argv)))


def test_a_preset_sets_defaults_and_yields_to_what_is_given_even_if_that_is_the_usual_default():
    assert parse() == {"model_size": "", "dims": "4,5", "layers": 7, "factor": 3.0, "limit": None}
    assert parse("--model-size", "tiny") == {**parse(), "dims": "1,2", "layers": 3}
    assert parse("--layers", "7", "--model-s=tiny") == {**parse(), "dims": "1,2"}
    assert from_params(Sizes, {"model_size": "tiny", "layers": 7}) == Sizes(dims=(1, 2), layers=7)


@pytest.mark.parametrize("argv", [["--model-size", "tiny", "--help"], ["--help", "--model-size=tiny"]])
def test_help_shows_the_defaults_that_hold_with_the_preset(argv, capsys):
    with pytest.raises(SystemExit):
        parse(*argv)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Widths. (default: 1,2)" in shown and "Layers. (default: 3)" in shown


def test_lists_are_numbers_in_options_and_text_in_the_record():
    assert from_params(Sizes, parse("--dims", "8")) == Sizes(dims=(8,))
    assert from_params(Sizes, {"dims": [3, 4]}) == Sizes(dims=(3, 4))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"layers": 0}, "--layers must be at least 1 and at most 9, got 0"),
        ({"layers": 10}, "--layers must be at least 1 and at most 9, got 10"),
        ({"factor": 1.0}, "--factor must be above 1, or 0, got 1.0"),
        ({"factor": float("nan")}, "--factor must be above 1 and finite, or 0, got nan"),
        ({"factor": float("inf")}, "--factor must be above 1 and finite, or 0, got inf"),
        ({"limit": 2**63}, "--limit must be at least 1 and at most 2147483647, got 9223372036854775808"),
        ({"dims": "2,0"}, "--dims must be at least 1, got 0"),
        ({"dims": "2,x"}, "--dims: expected integers separated by commas, got '2,x'"),
        ({"model_size": "tin"}, "unknown --model-size 'tin'; known: tiny, big"),
        ({"limit": 0}, "--limit must be at least 1, got 0"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(given, message):
    with pytest.raises(UserError) as e:
        from_params(Sizes, given)
    assert str(e.value) == message


def test_the_values_at_the_bounds_are_accepted():
    for given in ({"layers": 1}, {"layers": 9}, {"factor": 0}, {"factor": 1.1}, {"dims": "1"}):
        check_values(from_params(Sizes, given))


def test_mistakes_on_the_command_line_end_it_with_one_line(capsys):
    for argv, message in (
        (["--layer", "x"], "argument --layers: invalid int value: 'x'"),
        (["--dims", "1,,2"], "argument --dims: expected integers separated by commas, got '1,,2'"),
        (["--model-size", "huge"], "argument --model-size: invalid choice: 'huge'"),
        (["--laiers", "3"], "unknown option --laiers; did you mean --layers?"),
    ):
        with pytest.raises(SystemExit) as e:
            parse(*argv)
        err = capsys.readouterr().err
        assert e.value.code == 2 and message in err and len(err.splitlines()) == 1


@dataclass
class Places:
    """Places."""

    given: str = option("", "A file.", path=PathKind.FILE)
    folder: str = option("", "A folder.", path=PathKind.FOLDER)
    model: str = option("", "A file or folder.", path=PathKind.EITHER)
    exp_dir: str = option("exp", "A folder to make.", path=PathKind.PLACE)
    output: str = option("", "A file to write.", path=PathKind.OUTPUT)
    mix: bool = option(False, "Mix.")
    weights: str = option("1", "Weights.", only_with=OnlyWith("mix"))


def places(*argv):
    parser = Parser("A program")
    add_options(parser, Places)
    return parser.parse_args(list(argv))


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "dir").mkdir()
    (tmp_path / "text").write_text("x")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "argv, message",
    [
        ("--given missing", "--given: cannot read missing: No such file or directory"),
        ("--given dir", "--given: dir is a folder, not a file"),
        ("--given empty", "--given: empty is empty"),
        ("--given /dev/null", "--given: /dev/null is a device, not a file"),
        ("--given text/x", "--given: cannot read text/x: Not a directory"),
        ("--folder text", "--folder: text is a file, not a folder"),
        ("--folder missing", "--folder: cannot read missing: No such file or directory"),
        ("--model empty", "--model: empty is empty"),
        ("--exp-dir text", "--exp-dir: text is a file, not a folder"),
        ("--exp-dir text/below/it", "--exp-dir: text is a file, not a folder"),
        ("--exp-dir=", "--exp-dir must not be empty"),
        ("--output dir", "--output: dir is a folder, not a file"),
        ("--output text/x", "--output: text is a file, not a folder"),
        ("--weights 2", "--weights has no effect without --mix 1: leave it out"),
    ],
)
def test_what_cannot_be_read_written_or_used_is_refused_before_any_work(argv, message, odd, capsys):
    with pytest.raises(SystemExit) as e:
        places(*argv.split())
    assert e.value.code == 1 and capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize(
    "argv",
    ["--given text", "--given pipe", "--given=", "--model dir", "--exp-dir new/er", "--output new/file"]
    + ["--output /dev/null", "--weights 2 --mix 1", "--weights 1"],
)
def test_what_can_be_used_is_accepted(argv, odd):
    assert places(*argv.split())
