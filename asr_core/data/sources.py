"""Refusal of manifests whose data come from commands, URLs or pickles.

lhotse runs the source of a recording of type ``command`` in a shell, opens addresses such as
``pipe:...`` and ``https://...`` wherever it opens files, and unpickles features of the kind
``memory_raw``: reading a foreign manifest could do anything. What is not known to be harmless is
refused.
"""

import re
from typing import Any, Iterator, List, Mapping

from asr_core.utils.errors import UserError

_SOURCES = ("file", "memory", "shar")
_STORAGES = (
    "asr_core_flat",
    "lilcom_files",
    "numpy_files",
    "numpy_hdf5",
    "lilcom_hdf5",
    "chunked_lilcom_hdf5",
    "lilcom_chunky",
    "memory_lilcom",
    "memory_npy",
    "shar",
)
_ADDRESS = re.compile(r"\s*(pipe|fd):|.*://|.*\|\s*$", re.DOTALL)
# lhotse gives names with these endings to a shell, the first quoted and the second as they are
_OF_SHELL = re.compile(r".*'.*\.opus|.*[^\w@%+=:,./-].*\.sph", re.DOTALL | re.IGNORECASE | re.ASCII)


def check_sources(item: Mapping[str, Any], allow_commands: bool = False) -> None:
    """Refuse a cut, recording or other item of a manifest that runs or fetches something when read.

    Args:
      item: the item as JSON has it.
      allow_commands: accept any.

    Raises:
      UserError: naming the item and its source.
    """
    if allow_commands:
        return
    for part in _mappings(item):
        why = _danger_of(part)
        if why:
            raise UserError(
                f"{item.get('id') or item.get('recording_id')}: {why}, so that reading it could run any "
                "program or fetch any address; if you trust who wrote the manifest, give --allow-commands 1"
            )


def _mappings(item: object) -> Iterator[Mapping[str, Any]]:
    """Yield all mappings inside of ``item``, itself included."""
    waiting: List[object] = [item]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            waiting.extend(value)


def _danger_of(part: Mapping[str, Any]) -> str:
    """Return what is dangerous about a description of data; "" if nothing is."""
    if "source" in part and ("channels" in part or "type" in part):
        if part.get("type") not in _SOURCES:
            return f"its source is of type {part.get('type')!r}: {_shown(part['source'])}"
        if part.get("type") == "file" and _is_dangerous(part["source"]):
            return f"its source is no plain file name: {_shown(part['source'])}"
    if "storage_type" in part:
        if part["storage_type"] not in _STORAGES:
            return f"it is stored as {part['storage_type']!r}"
        if _is_dangerous(part.get("storage_path")):
            return f"its features are in no plain file: {_shown(part['storage_path'])}"
    return ""


def _is_dangerous(path: object) -> bool:
    return isinstance(path, str) and bool(_ADDRESS.match(path) or _OF_SHELL.match(path))


def _shown(source: object) -> str:
    return repr(str(source)[:60])
