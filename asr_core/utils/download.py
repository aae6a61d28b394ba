"""Downloading one file, whole or not at all."""

import gzip
import http.client
import logging
import shutil
import sys
import urllib.request
import zlib
from pathlib import Path

from tqdm import tqdm

from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path
from asr_core.utils.paths import PathLike

_BLOCK = 1 << 20  # bytes that are copied at once
_TIMEOUT = 60  # seconds without an answer


def fetch(url: str, output: PathLike, *, gunzip: bool = False) -> None:
    """Download ``url`` to ``output``, with a progress bar.

    Args:
      url: address of the file.
      output: path to write.
      gunzip: the file is compressed by gzip; write its content. ``<output>.gz`` is used if it is
        there already.

    Raises:
      UserError: the address cannot be reached, the connection broke, or the file is damaged;
        nothing is left at ``output``.
    """
    logging.info("downloading %s", url)
    if not gunzip:
        return _download(url, Path(output))
    compressed = Path(f"{output}.gz")
    was_there = compressed.is_file()
    if not was_there:
        _download(url, compressed)
    _unzip(compressed, Path(output))
    if not was_there:
        compressed.unlink()


def _unzip(source: Path, output: Path) -> None:
    try:
        with gzip.open(source, "rb") as compressed, atomic_path(output) as tmp, open(tmp, "wb") as f:
            shutil.copyfileobj(compressed, f, _BLOCK)
    except FileNotFoundError as e:
        raise UserError(f"no such file: {source}") from e
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"{source} is damaged ({e}); remove it and start the same command again") from e


def _download(url: str, output: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, atomic_path(output) as tmp:
            size = int(response.headers.get("Content-Length") or 0)
            got = _copy(response, tmp, size, output.name)
            if got < size:
                raise UserError(
                    f"the download of {url} broke off after {got} of {size} bytes; "
                    "start the same command again"
                )
    except (OSError, ValueError, http.client.HTTPException) as e:
        raise UserError(
            f"cannot download {url}: {e}; you can fetch it by other means and give its folder with --dl-dir"
        ) from e


def _copy(response: http.client.HTTPResponse, target: Path, size: int, name: str) -> int:
    """Copy a response to a file with a progress bar; return its number of bytes."""
    got = 0
    quiet = not sys.stderr.isatty()
    with (
        open(target, "wb") as f,
        tqdm(total=size or None, unit="B", unit_scale=True, desc=name, disable=quiet) as bar,
    ):
        while block := response.read(_BLOCK):
            f.write(block)
            got += len(block)
            bar.update(len(block))
    return got
