"""The recipes' programs, run in this process, completely or until they have parsed options."""

from pathlib import Path

import pytest

from asr_core.bin import recipe, train, train_lm
from asr_core.utils.options import Parser

EGS = Path(__file__).resolve().parents[2] / "egs"
RECIPES = sorted(path.parent for path in EGS.rglob("recipe.py"))
# The Python files of recipes that are not stubs.
OTHERS = ("recipe.py", "configurations.py", "ctc_first.py")
STUBS = sorted(path for folder in RECIPES for path in folder.glob("*.py") if path.name not in OTHERS)


class Parsed(Exception):
    """Carries what a program was about to do out of it."""


def run_here(path, *argv):
    """Run program ``path`` in this process."""
    recipe.run(str(path), "__main__", list(map(str, argv)))


def _stopped(path, argv, stop_at, stop):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr_core.utils.options.check_path", lambda option, path, kind: None)
        for name, value in stop_at:
            patch.setattr(name, value, stop)
        with pytest.raises(Parsed) as caught:
            run_here(path, *argv)
    return caught.value.args


def parser_of(path, *argv):
    """The parser that program ``path`` makes for a command line."""

    def stop(self, args=None, namespace=None):
        raise Parsed(self)

    return _stopped(path, argv, [(Parser, "parse_args")], stop)[0]


def options_given(path, *argv):
    """Return the parser's namespace that program ``path`` reads from a command line.

    Files that it names need not exist.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asr_core.utils.options.check_path", lambda option, path, kind: None)
        return parser_of(path, *argv).parse_args(list(map(str, argv)))


def training_of(path, *argv):
    """Return what a train.py would train: ``(corpus, recipe)``, or ``()`` for an LM, and params."""

    def stop(function, args, params):
        raise Parsed(args, params)

    args, params = _stopped(path, argv, [(train, "launch"), (train_lm, "launch")], stop)
    if args:
        corpus, source = args
        args = corpus, source if source is None or isinstance(source, type) else source()
    return args, params
