"""Command lines: of programs whose options are one dataclass, and what one holds."""

import argparse
import dataclasses
from typing import Mapping, Optional, Sequence, Set, Type

from asr_core.utils.errors import UserError
from asr_core.utils.options import OptionsT, Parser, add_options, flag, from_params


def parse_options(
    cls: Type[OptionsT],
    description: Optional[str],
    argv: Optional[Sequence[str]] = None,
    *,
    defaults: Optional[Mapping[str, object]] = None,
) -> OptionsT:
    """Parse a command line into dataclass ``cls``.

    On a mistake the process ends with one line on stderr: with status 2 if argparse finds it or a
    needed option is missing, with status 1 if a value is out of its bounds.

    Args:
      cls: a dataclass whose fields were made by :func:`~asr_core.utils.options.option`.
      description: description of the program, for ``--help``.
      argv: the command line; None: the process' own.
      defaults: see :func:`~asr_core.utils.options.add_options`.
    """
    parser = Parser(description or "")
    add_options(parser, cls, defaults)
    args = parser.parse_args(argv)
    fields = dataclasses.fields(cls)
    needed = [field.name for field in fields if field.metadata["needed"]]
    if not all(getattr(args, name) for name in needed):
        *others, last = map(flag, needed)
        parser.error(f"{', '.join(others)} and {last} are needed" if others else f"{last} is needed")
    try:
        return from_params(cls, args)
    except UserError as e:
        parser.exit(1, f"error: {e}\n")
        raise  # never reached: exit ends the process


def options_on(argv: Optional[Sequence[str]], parser: Parser) -> Set[str]:
    """Return the names of the options on a command line without errors, however spelt."""
    missing = object()
    values, _ = parser.parse_known_args(argv, argparse.Namespace(**dict.fromkeys(parser.names, missing)))
    return {name for name, value in vars(values).items() if value is not missing}
