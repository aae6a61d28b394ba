"""One definition of each option: a dataclass field with type, default and help.

The command line, the checkpoint's record and the table in the docs all come from these fields.
"""

import argparse
import dataclasses
import difflib
import json
import typing
from pathlib import Path
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    List,
    Mapping,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

from asr_core.utils.errors import UserError

T = TypeVar("T")


class AttributeDict(dict):
    """A dict whose entries are also attributes; ``str()`` gives sorted JSON."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no parameter {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __str__(self) -> str:
        return json.dumps(self, indent=2, sort_keys=True, default=str)


def str2bool(text: Any) -> bool:
    """Read yes/true/t/y/1 and no/false/f/n/0, whatever the case."""
    if isinstance(text, bool):
        return text
    low = str(text).lower()
    if low in ("yes", "true", "t", "y", "1"):
        return True
    if low in ("no", "false", "f", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected a boolean such as 1, 0, true or false, got {text!r}")


def int_list(text: str) -> Tuple[int, ...]:
    """Read a comma-separated list of integers, ``"2,2,3"`` -> ``(2, 2, 3)``."""
    try:
        return tuple(int(part) for part in str(text).split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected integers separated by commas, got {text!r}") from None


def int_entries(opts: Any, name: str) -> Tuple[int, ...]:
    """Field ``name`` of options, a comma-separated list of integers.

    Raises:
      UserError: it is none.
    """
    text = str(getattr(opts, name))
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--{name.replace('_', '-')} {text!r} is not a comma-separated list of integers"
        ) from None


def peek(argv: Optional[Sequence[str]], name: str, default: str) -> str:
    """The value of option ``--name`` on a command line, before the parser that depends on it is made.

    Args:
      argv: the command line; None is the process' own.
      name: the option, written out on the command line.
      default: if it is not there.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", dest="value", nargs="?", default=default, const=default)
    return parser.parse_known_args(argv)[0].value


def option(
    default: Any,
    help: str,
    *,
    choices: Optional[Sequence[Any]] = None,
    type: Optional[Callable] = None,
    aliases: Sequence[str] = (),
    presets: Optional[Mapping[str, Mapping[str, Any]]] = None,
) -> Any:
    """A dataclass field that is also a command-line option.

    Args:
      default: its value where the user gives none.
      help: one or two sentences; the default is appended by ``--help``.
      choices: the only values allowed.
      type: a converter from text, where the field's annotation does not say enough.
      aliases: further spellings, e.g. ``("--num_active_paths",)``.
      presets: what a value of this option stands for: values of other options by name. Options given besides win.
    """
    meta = {"help": help, "choices": choices, "type": type, "aliases": tuple(aliases), "presets": presets}
    return dataclasses.field(default=default, metadata=meta)


def add_options(
    parser: argparse.ArgumentParser,
    cls: type,
    defaults: Optional[Mapping[str, Any]] = None,
    only: Optional[Collection[str]] = None,
) -> None:
    """Add one argument for each field of dataclass ``cls``, in a group titled by the first line of its docstring.

    Args:
      parser: where to add them.
      cls: a dataclass whose fields were made by :func:`option`.
      defaults: defaults of this program or recipe, by field name, in place of the fields' own.
      only: names of the fields that this program has a use for; by default all.
    """
    group = parser.add_argument_group((cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip("."))
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if only is not None and field.name not in only:
            continue
        meta = field.metadata
        default = (defaults or {}).get(field.name, field.default)
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            *meta["aliases"],
            dest=field.name,
            type=meta["type"] or _converter(hints[field.name]),
            default=default,
            choices=meta["choices"],
            metavar=None if meta["choices"] else _metavar(hints[field.name]),
            help=meta["help"].replace("%", "%%"),
        )
        if meta["presets"] and isinstance(parser, Parser):
            parser.presets[field.name] = (meta["presets"], field.default)


def from_params(cls: Type[T], params: Any) -> T:
    """Build dataclass ``cls`` from the entries of ``params`` (a mapping or namespace) that carry its fields' names."""
    values = params if isinstance(params, Mapping) else vars(params)
    return cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values})  # type: ignore[arg-type]


def defaults_of(cls: type) -> Dict[str, Any]:
    """The default of each field of dataclass ``cls``, by name."""
    return {f.name: f.default for f in dataclasses.fields(cls)}


def _converter(hint: Any) -> Callable[[str], Any]:
    if typing.get_origin(hint) is typing.Union:  # Optional[X]
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    return str2bool if hint is bool else hint


def _metavar(hint: Any) -> str:
    name = getattr(_converter(hint), "__name__", "VALUE")
    return {"str2bool": "BOOL"}.get(name, name.upper())


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=110)

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        return action.help if action.default in (None, "", []) else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse with defaults shown, unambiguous prefixes allowed, and errors of one line that name the nearest option."""

    def __init__(self, description: str, **kwargs: Any) -> None:
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=True, **kwargs)
        self.presets: Dict[str, Tuple[Mapping[str, Mapping[str, Any]], Any]] = {}

    def parse_args(self, args: Optional[Sequence[str]] = None, namespace: Any = None) -> Any:
        values, extra = self.parse_known_args(args, namespace)
        if extra:
            self.error(self._unknown(extra))
        chosen = {name: getattr(values, name, None) for name in self.presets}
        wanted = {
            name: self.presets[name][0][value]
            for name, value in chosen.items()
            if value in self.presets[name][0]
        }
        if wanted:
            for preset in wanted.values():
                self.set_defaults(**preset)
            values, _ = self.parse_known_args(
                args, namespace
            )  # once more: what was given besides wins over the presets
            for name, preset in wanted.items():  # recorded as what it stands for
                setattr(values, name, preset.get(name, self.presets[name][1]))
        return values

    def _unknown(self, extra: List[str]) -> str:
        flags = [e.split("=")[0] for e in extra if e.startswith("--")]
        if not flags:
            return f"unexpected argument {extra[0]!r}"
        near = difflib.get_close_matches(flags[0], list(self._option_string_actions), n=1, cutoff=0.5)
        return f"unknown option {flags[0]}" + (
            f"; did you mean {near[0]}?" if near else "; --help lists them all"
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def params_of(args: argparse.Namespace) -> AttributeDict:
    """The parsed arguments as an :class:`AttributeDict` (the record that checkpoints carry)."""
    return AttributeDict({k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()})
