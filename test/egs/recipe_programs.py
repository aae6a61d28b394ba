"""The recipes' programs, run up to where they have read their command line."""

import runpy
import sys
from pathlib import Path

import pytest

from asr_core.bin import train, train_lm
from asr_core.utils.options import Parser

EGS = Path(__file__).resolve().parents[2] / "egs"
_OF_RECIPES = {path.stem for path in EGS.glob("*/ASR/*.py")} | {"configurations"}


class Parsed(Exception):
    """Carries what a program was to do out of it."""


def _stopped(path, argv, patch, stop_at, stop):
    for name, value in stop_at:
        patch.setattr(name, value, stop)
    patch.setattr(sys, "argv", [str(path), *map(str, argv)])
    patch.syspath_prepend(str(path.parent))
    for name in _OF_RECIPES & set(sys.modules):  # recipes have modules of the same names
        patch.delitem(sys.modules, name)
    with pytest.raises(Parsed) as caught:
        runpy.run_path(str(path), run_name="__main__")
    for name in _OF_RECIPES & set(sys.modules):
        del sys.modules[name]
    return caught.value.args


def parser_of(path, *argv):
    """The parser that program ``path`` makes for a command line."""

    def stop(self, args=None, namespace=None):
        raise Parsed(self)

    with pytest.MonkeyPatch.context() as patch:
        return _stopped(path, argv, patch, [(Parser, "parse_args")], stop)[0]


def options_given(path, *argv):
    """What program ``path`` reads from a command line: the parser's namespace."""
    return parser_of(path, *argv).parse_args(list(map(str, argv)))


def training_of(path, *argv):
    """What a train.py would train: ``(corpus class, recipe class), params``; for language models ``(), params``."""

    def stop(function, args, params):
        raise Parsed(args, params)

    with pytest.MonkeyPatch.context() as patch:
        return _stopped(path, argv, patch, [(train, "launch"), (train_lm, "launch")], stop)


def run_here(path, *argv):
    """Run program ``path`` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *map(str, argv)])
        patch.syspath_prepend(str(path.parent))
        runpy.run_path(str(path), run_name="__main__")
