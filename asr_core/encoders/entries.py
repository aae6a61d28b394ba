"""Options that are lists with one entry for each stack or block of an encoder."""

from typing import Dict, Mapping, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import flag


def expand_entries(lists: Mapping[str, Tuple[int, ...]], count: int, unit: str) -> Dict[str, Tuple[int, ...]]:
    """Return ``lists`` where each has ``count`` entries: a single entry stands for all of them.

    Args:
      lists: values of options, by name.
      count: number of stacks or blocks.
      unit: their name in messages.

    Raises:
      UserError: a list has neither one entry nor ``count``.
    """
    for name, values in lists.items():
        if len(values) not in (1, count):
            raise UserError(
                f"{flag(name)} has {len(values)} entries, but there are {count} {unit}s:"
                f" give one per {unit}, or a single one"
            )
    return {name: values if len(values) == count else values * count for name, values in lists.items()}
