"""Manifests as lines of text: counting, joining, transcripts; nothing here builds a cut."""

import contextlib
import gzip
import json
import random
import re
import tempfile
import zlib
from pathlib import Path
from typing import BinaryIO, Iterator, List, NamedTuple, Sequence

from asr_core.text.tokenizer import single_spaced
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path, open_binary
from asr_core.utils.paths import PathLike

_OTHER_SPEED = re.compile(r"_sp\d+(\.\d+)?$")  # how lhotse marks the ids of cuts of changed speed

# What reading a line of JSON raises if it is not what it should be
NOT_A_CUT = (ValueError, KeyError, TypeError, AttributeError, RecursionError, AssertionError)


def not_a_cut(path: PathLike, number: int, line: bytes, e: BaseException, what: str = "a cut") -> UserError:
    """Return the error about a line of a manifest that is not ``what`` it should be.

    Args:
      path: the manifest.
      number: number of the line, from 1.
      line: its content.
      e: what reading it raised.
      what: what it should be.
    """
    if isinstance(e, KeyError):
        why = f"no field {e}"
    elif isinstance(e, (json.JSONDecodeError, UnicodeDecodeError)):
        why = f"the line is damaged or incomplete: {e}"
    else:
        why = str(e) or type(e).__name__
    shown = line[:60].decode("utf-8", "backslashreplace")
    return UserError(f"{path}:{number}: not {what} in JSON ({' '.join(why.split())}): {shown!r}")


@contextlib.contextmanager
def open_lines(path: PathLike) -> Iterator[BinaryIO]:
    """Open a manifest, ``.jsonl.gz`` or ``.jsonl``, to read its lines as bytes.

    Raises:
      UserError: it is missing, or found to be damaged while it is read.
    """
    try:
        with open_binary(path) as f:
            yield f
    except FileNotFoundError as e:
        raise UserError(f"no such manifest: {path}") from e
    except (IsADirectoryError, PermissionError) as e:
        raise UserError(f"cannot read manifest {path}: {e.strerror}") from e
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"manifest {path} is damaged ({e}); remove it and run prepare.sh again") from e


def count_lines(path: PathLike) -> int:
    """Return the number of lines of a manifest; errors as :func:`open_lines`."""
    with open_lines(path) as f:
        return sum(1 for _ in f)


def combine_manifests(
    inputs: Sequence[PathLike], target: PathLike, *, shuffle: bool = False, seed: int = 42
) -> int:
    """Write the lines of all ``inputs`` to one manifest, in order or shuffled.

    The same input and seed give the same bytes. Memory holds the places of the lines only.

    Args:
      inputs: manifests.
      target: manifest to write, ``.jsonl.gz``.
      shuffle: whether to shuffle the lines.
      seed: seed of their order.

    Returns:
      The number of lines.

    Raises:
      UserError: a manifest is missing or damaged, or one of its texts is no text.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as lines:
        starts = _copy_lines(inputs, lines)
        spans = list(zip(starts, starts[1:]))
        if shuffle:
            random.Random(seed).shuffle(spans)
        with atomic_path(target) as tmp, open(tmp, "wb") as raw:
            # Neither a name nor a time in the header: the same lines give the same bytes.
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as out:
                for start, end in spans:
                    lines.seek(start)
                    out.write(lines.read(end - start))
    return len(spans)


def _copy_lines(inputs: Sequence[PathLike], target: BinaryIO) -> List[int]:
    """Write all lines, uncompressed; return the place where each starts, and the end."""
    starts = [0]
    for path in inputs:
        before = len(starts)
        with open_lines(path) as f:
            for number, line in enumerate(f, 1):
                if line.isspace():
                    continue
                _entry(path, number, line, "an entry of a manifest")
                starts.append(starts[-1] + target.write(line if line.endswith(b"\n") else line + b"\n"))
        if len(starts) == before:
            raise UserError(f"{path} has no entries of a manifest")
    return starts


def texts_of(path: PathLike) -> Iterator[str]:
    """Yield the transcripts of a manifest of supervisions or cuts, in order.

    Empty transcripts and those of cuts of changed speed are left out.

    Raises:
      UserError: the manifest is missing or damaged, or one of its texts is no text.
    """
    with open_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            entry = _entry(path, number, line, "a cut or a supervision")
            if not _OTHER_SPEED.search(entry.name):
                yield from filter(None, map(single_spaced, entry.texts))


class _Entry(NamedTuple):
    """What a line of a manifest of cuts, supervisions or recordings says: id and transcripts."""

    name: str
    texts: List[str]


def _entry(path: PathLike, number: int, line: bytes, what: str) -> _Entry:
    """Read a line of a manifest.

    Args:
      path: the manifest.
      number: number of the line, from 1.
      line: its content.
      what: what it should be, for messages.

    Raises:
      UserError: it is not that, or a transcript is no text.
    """
    try:
        item = json.loads(line)
        if not isinstance(item, dict):
            raise ValueError("no object")
        name = str(item.get("id", ""))  # entries of some manifests have none
        supervisions = item.get("supervisions") or ([item] if "text" in item else [])
        texts = [supervision.get("text") for supervision in supervisions]
    except NOT_A_CUT as e:
        raise not_a_cut(path, number, line, e, what) from e
    for text in texts:
        if not isinstance(text, (str, type(None))):
            raise UserError(
                f"{path}:{number}: a text that is no text: {json.dumps(text)[:60]}, of {name}; "
                "put it in quotes, or remove the line"
            )
    return _Entry(name, [text or "" for text in texts])


def write_transcripts(inputs: Sequence[PathLike], target: PathLike) -> int:
    """Write the transcripts of manifests to a text file, one a line, see :func:`texts_of`.

    Returns:
      The number of lines.

    Raises:
      UserError: a manifest is missing or damaged, or there are no transcripts.
    """
    number = 0
    with atomic_path(target) as tmp, open(tmp, "w", encoding="utf-8") as out:
        for path in inputs:
            for text in texts_of(path):
                out.write(f"{text}\n")
                number += 1
        if not number:
            raise UserError(f"no transcripts in {', '.join(map(str, inputs))}")
    return number
