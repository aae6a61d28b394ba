"""Options that are lists with one entry for each stack or block of an encoder."""

from typing import Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import flag


def expand_entries(name: str, values: Tuple[int, ...], count: int, unit: str) -> Tuple[int, ...]:
    """Return a list with ``count`` entries; a single value is repeated.

    Args:
      name: the option.
      values: its value.
      count: number of stacks or blocks.
      unit: name of the entries in messages.

    Raises:
      UserError: the list has neither one entry nor ``count``.
    """
    if len(values) not in (1, count):
        raise UserError(
            f"{flag(name)} has {len(values)} entries, but there are {count} {unit}s:"
            f" give one per {unit}, or a single one"
        )
    return values if len(values) == count else values * count
