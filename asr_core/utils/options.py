"""One definition of each option: a dataclass field with type, default, bounds and help.

The command line, the checkpoint's record and the table in the docs all come from these fields.
"""

import argparse
import dataclasses
import difflib
import json
import re
import sys
import textwrap
import typing
from pathlib import Path
from typing import (
    Any,
    Callable,
    ClassVar,
    Collection,
    Dict,
    List,
    Mapping,
    NoReturn,
    Optional,
    Protocol,
    Sequence,
    Set,
    Tuple,
    Type,
    TypeVar,
    Union,
)

from asr_core.utils.errors import UserError
from asr_core.utils.option_paths import PathKind, check_path
from asr_core.utils.option_values import Bounds, OnlyWith, flag, int_tuple, str2bool, str_tuple

T = TypeVar("T")
OptionsT = TypeVar("OptionsT", bound="OptionsInstance")
Presets = Mapping[Any, Mapping[str, Any]]


class OptionsInstance(Protocol):
    """An instance of a dataclass of options."""

    __dataclass_fields__: ClassVar[Dict[str, Any]]


class AttributeDict(dict):
    """A dict whose entries are also attributes; ``str()`` gives sorted JSON."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no parameter {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __str__(self) -> str:
        return json.dumps(self, indent=2, sort_keys=True, default=str)


def option(
    default: T,
    help: str,
    *,
    choices: Optional[Collection[object]] = None,
    type: Optional[Callable[[str], object]] = None,
    aliases: Sequence[str] = (),
    presets: Optional[Presets] = None,
    at_least: Optional[float] = None,
    above: Optional[float] = None,
    at_most: Optional[float] = None,
    below: Optional[float] = None,
    unless: Optional[float] = None,
    finite: bool = True,
    needed: bool = False,
    positional: bool = False,
    path: Optional[PathKind] = None,
    only_with: Optional[OnlyWith] = None,
) -> T:
    """Declare a dataclass field that is also a command-line option.

    Args:
      default: its value where the user gives none.
      help: one or two sentences; the default is appended by ``--help``.
      choices: the only values allowed; a mapping is looked up when a value is checked.
      type: a converter from text, where the field's annotation does not say enough.
      aliases: further spellings, e.g. ``("--num_active_paths",)``.
      presets: for each value of this option, values of other options by name. Options
        given besides win.
      at_least, above, at_most, below, unless, finite: see :class:`Bounds`; of a list, they hold
        for each entry. ``None`` is always accepted.
      needed: whether the user must give it, see :func:`~asr_core.utils.parsing.parse_options`.
      positional: whether its values, one or more, are arguments without ``--name``.
      path: what the path is that it names; a path that the user gives is checked before any work.
      only_with: the option without which another value than the default has no effect, and is
        refused.
    """
    meta = {
        "help": help,
        "choices": choices,
        "type": type,
        "aliases": tuple(aliases),
        "presets": presets,
        "bounds": Bounds(at_least, above, at_most, below, unless, finite),
        "needed": needed,
        "positional": positional,
        "path": path,
        "only_with": only_with,
    }
    return dataclasses.field(default=default, metadata=meta)


def check_values(opts: OptionsInstance) -> None:
    """Check the fields of an options dataclass against the choices and bounds they declare.

    Raises:
      UserError: naming the first option that is not one of its choices or is out of bounds.
    """
    for field in dataclasses.fields(opts):
        value, choices = getattr(opts, field.name), field.metadata.get("choices")
        if choices is not None and value not in choices and value != field.default:
            known = ", ".join(str(choice) for choice in choices if choice != "")
            raise UserError(f"unknown {flag(field.name)} {value!r}; known: {known}")
        check_numbers(field.name, value, field.metadata.get("bounds", Bounds()))


def check_numbers(name: str, value: object, bounds: Bounds) -> None:
    """Check the numbers among the values of option ``name``; other values pass.

    Raises:
      UserError: one is out of bounds.
    """
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not bounds.accept(number):
            raise UserError(f"{flag(name)} must be {bounds.describe(number)}, got {number}")


def from_params(cls: Type[OptionsT], params: Union[Mapping[str, Any], argparse.Namespace]) -> OptionsT:
    """Build dataclass ``cls`` from the entries of ``params`` that carry its fields' names.

    A preset named there fills in what ``params`` leaves out; lists may be text, as on the command
    line.

    Args:
      cls: a dataclass whose fields were made by :func:`option`.
      params: a mapping or namespace; other entries are ignored.

    Raises:
      UserError: a value is malformed, unknown, or out of its bounds.
    """
    values = expand_presets(cls, params if isinstance(params, Mapping) else vars(params))
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if _is_tuple(hints[name]) and not isinstance(value, tuple):
            try:
                values[name] = _converter(hints[name])(value)
            except argparse.ArgumentTypeError as e:
                raise UserError(f"{flag(name)}: {e}") from e
    opts = cls(**values)
    check_values(opts)
    return opts


def expand_presets(cls: Type[OptionsInstance], given: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the entries of ``given`` that are fields of ``cls``, its presets expanded.

    An entry of ``given`` wins over a preset's. The preset's own option becomes its default.
    """
    fields = dataclasses.fields(cls)
    values = {f.name: given[f.name] for f in fields if f.name in given}
    presets = {f.name: (f.metadata["presets"], f.default) for f in fields if f.metadata.get("presets")}
    implied, recorded = _expand(presets, values)
    names = {f.name for f in fields}
    return {**{k: v for k, v in implied.items() if k in names}, **values, **recorded}


def defaults_of(cls: Type[OptionsInstance]) -> Dict[str, Any]:
    """Return the default of each field of dataclass ``cls``, by name."""
    return {f.name: f.default for f in dataclasses.fields(cls)}


def _expand(
    presets: Mapping[str, Tuple[Presets, Any]], chosen: Mapping[str, Any]
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Look up the presets that ``chosen`` names.

    Returns the values that they imply, and what the presets' own options are recorded as: a preset
    is recorded as the values it stands for, so that a later change of it changes no old model.
    """
    implied: Dict[str, Any] = {}
    recorded: Dict[str, Any] = {}
    for name, (table, default) in presets.items():
        if chosen.get(name) in table:
            implied.update(table[chosen[name]])
            recorded[name] = table[chosen[name]].get(name, default)
    return implied, recorded


def peek(argv: Optional[Sequence[str]], name: str, default: str) -> str:
    """Return the value of option ``--name``, before the parser that depends on it is made.

    Args:
      argv: the command line; None: the process' own.
      name: the option, written out on the command line.
      default: if it is not there.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", dest="value", nargs="?", default=default, const=default)
    return parser.parse_known_args(argv)[0].value


def add_options(
    parser: argparse.ArgumentParser,
    cls: Type[OptionsInstance],
    defaults: Optional[Mapping[str, Any]] = None,
    only: Optional[Collection[str]] = None,
    choices: Optional[Mapping[str, Collection[Any]]] = None,
) -> None:
    """Add one argument for each field of dataclass ``cls``, in its own group.

    The first line of the dataclass's docstring is the title of the group.

    Args:
      parser: parser to add them to.
      cls: a dataclass whose fields were made by :func:`option`.
      defaults: defaults of this program or recipe, by field name, instead of the fields' own.
      only: names of the fields that this program uses; by default all.
      choices: narrower choices of this program, by field name.
    """
    group = parser.add_argument_group(_title(cls))
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if only is not None and field.name not in only:
            continue
        meta = field.metadata
        if isinstance(parser, Parser):
            parser.declared[field.name] = meta
        if meta["positional"]:
            group.add_argument(field.name, nargs="+", help=meta["help"])
            continue
        allowed = (choices or {}).get(field.name, meta["choices"])
        group.add_argument(
            flag(field.name),
            *meta["aliases"],
            dest=field.name,
            type=meta["type"] or _converter(hints[field.name]),
            default=(defaults or {}).get(field.name, field.default),
            choices=None if allowed is None else list(allowed),
            metavar=None if allowed else _metavar(hints[field.name]),
            help=meta["help"].replace("%", "%%"),
        )
        if meta["presets"] and isinstance(parser, Parser):
            parser.presets[field.name] = (meta["presets"], field.default)


def _title(cls: type) -> str:
    """Return the first line of a docstring; under python -OO, which drops it, the name in words."""
    if sys.flags.optimize >= 2:  # dataclasses then have their signature there
        return re.sub("(?<=[a-z])(?=[A-Z])", " ", cls.__name__).capitalize()
    return (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip(".")


def _is_tuple(hint: object) -> bool:
    return typing.get_origin(hint) is tuple


def _converter(hint: object) -> Callable[[str], object]:
    if typing.get_origin(hint) is typing.Union:  # Optional[X]
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    if _is_tuple(hint):
        return int_tuple if typing.get_args(hint)[0] is int else str_tuple
    if hint is bool:
        return str2bool
    assert callable(hint)  # int, float or str
    return hint


def _metavar(hint: object) -> str:
    name = getattr(_converter(hint), "__name__", "VALUE")
    return {"str2bool": "BOOL", "int_tuple": "INT,...", "str_tuple": "NAME,..."}.get(name, name.upper())


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, and never breaks a line inside an option's name."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=110)

    def _split_lines(self, text: str, width: int) -> List[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        text = " ".join(text.split())
        return textwrap.fill(
            text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        if action.default in (None, "", [], ()):
            return action.help
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {_as_text(action.default)})"
        return super()._get_help_string(action)


def _as_text(entries: Tuple[Any, ...]) -> str:
    return ",".join(map(str, entries))


class Parser(argparse.ArgumentParser):
    """argparse's parser with defaults shown, prefixes allowed, and errors of one line.

    The error about an unknown option names the nearest one.
    """

    def __init__(self, description: str, **kwargs: Any) -> None:
        super().__init__(description=description, formatter_class=_HelpFormatter, allow_abbrev=True, **kwargs)
        self.presets: Dict[str, Tuple[Presets, Any]] = {}
        self.declared: Dict[str, Mapping[str, Any]] = {}  # the metadata of fields, by option

    @property
    def names(self) -> Set[str]:
        """The names of all options, as in the parsed namespace."""
        return {action.dest for action in self._actions}

    def parse_args(  # type: ignore[override]  # argparse's overloads are for namespaces of other classes
        self, args: Optional[Sequence[str]] = None, namespace: Optional[argparse.Namespace] = None
    ) -> argparse.Namespace:
        """Parse; a preset gives the defaults of the options that are not on the command line.

        A number out of its bounds, or a path that is not what it should be, ends the process with
        status 1.
        """
        chosen = self._chosen_presets(args)
        implied, recorded = _expand(self.presets, chosen)
        self.set_defaults(**implied)  # before --help, which shows the defaults that hold
        values, extra = self.parse_known_args(args, namespace)
        if extra:
            self.error(self._unknown(extra))
        for name, value in recorded.items():
            setattr(values, name, value)
        try:
            for name, value in vars(values).items():
                check_numbers(name, value, self.declared.get(name, {}).get("bounds", Bounds()))
            for name, meta in self.declared.items():
                self._check_given(name, meta, values)
        except UserError as e:
            self.exit(1, f"error: {e}\n")
        return values

    def _check_given(self, name: str, meta: Mapping[str, Any], values: argparse.Namespace) -> None:
        """Check an option that has another value than its default."""
        value = getattr(values, name, None)
        if value is None or value == self.get_default(name):
            return
        named = name if meta["positional"] else flag(name)
        if meta["only_with"]:
            meta["only_with"].check(named, vars(values))
        if meta["path"]:
            for path in value if isinstance(value, (list, tuple)) else (value,):
                check_path(named, str(path), meta["path"])

    def _chosen_presets(self, args: Optional[Sequence[str]]) -> Dict[str, Any]:
        """Return the values of the options that have presets.

        Other options, and errors, are left to the parser itself.
        """
        quiet = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        for name in self.presets:
            action = next(a for a in self._actions if a.dest == name)
            spellings, converter = self._spellings(action), action.type or str
            quiet.add_argument(*spellings, dest=name, type=converter, nargs="?", default=action.default)
        try:
            return vars(quiet.parse_known_args(args)[0])
        except (argparse.ArgumentError, argparse.ArgumentTypeError):
            return {}

    def _spellings(self, action: argparse.Action) -> List[str]:
        """Return the option's spellings and their prefixes that mean no other option."""
        flags = self._option_string_actions
        prefixes = {text[:n] for text in action.option_strings for n in range(3, len(text))}
        unambiguous = {
            p for p in prefixes if all(a is action for text, a in flags.items() if text.startswith(p))
        }
        return [*action.option_strings, *sorted(unambiguous - set(action.option_strings))]

    def _unknown(self, extra: List[str]) -> str:
        flags = [e.split("=")[0] for e in extra if e.startswith("--")]
        if not flags:
            return f"unexpected argument {extra[0]!r}"
        word, names = flags[0].strip("-"), sorted(n.strip("-") for n in self._option_string_actions)
        near = difflib.get_close_matches(word, names, n=1) or [n for n in names if word in n.split("-")]
        guess = " or ".join(f"--{name}" for name in near[:3])
        return f"unknown option --{word}; " + (f"did you mean {guess}?" if near else "--help lists them all")

    def error(self, message: str) -> NoReturn:
        """End the process with status 2 and one line."""
        self.exit(2, f"{self.prog}: error: {message}\n")


def params_of(args: argparse.Namespace) -> AttributeDict:
    """Return the parsed arguments as checkpoints record them: paths and lists as their text."""
    return AttributeDict({name: as_recorded(value) for name, value in vars(args).items()})


def record_of(opts: OptionsInstance) -> Dict[str, Any]:
    """Return the fields of an options dataclass as checkpoints record them, by name."""
    return {field.name: as_recorded(getattr(opts, field.name)) for field in dataclasses.fields(opts)}


def as_recorded(value: object) -> object:
    """Return a value as checkpoints record it: paths and lists as their text."""
    if isinstance(value, tuple):
        return _as_text(value)
    return str(value) if isinstance(value, Path) else value
