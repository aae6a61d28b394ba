"""Download one file, whole or not at all."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, add_options, from_params, option

_BLOCK = 1 << 20


@dataclass
class DownloadOptions:
    """Download: from where, to where."""

    url: str = option("", "address of the file")
    output: str = option("", "path to write")
    gunzip: bool = option(
        False, "the file is compressed by gzip: write what is in it; <output>.gz is taken where it is there"
    )


def unzip(source: Path, output: Path) -> None:
    """Write what the gzip file ``source`` holds to ``output``.

    Raises:
      UserError: it is missing or damaged; nothing is left at ``output``.
    """
    import gzip
    import shutil
    import zlib

    from asr_core.utils.files import atomic_path

    try:
        with gzip.open(source, "rb") as compressed, atomic_path(output) as tmp, open(tmp, "wb") as f:
            shutil.copyfileobj(compressed, f, _BLOCK)
    except FileNotFoundError as e:
        raise UserError(f"no such file: {source}") from e
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"{source} is damaged ({e}); remove it and start the same command again") from e


def fetch(opts: DownloadOptions) -> None:
    """Run the program with ``opts``."""
    if not opts.gunzip:
        return download(opts.url, opts.output)
    compressed = Path(f"{opts.output}.gz")
    had = compressed.is_file()
    if not had:
        download(opts.url, str(compressed))
    unzip(compressed, Path(opts.output))
    if not had:
        compressed.unlink()


def download(url: str, output: str) -> None:
    """Fetch ``url`` to ``output`` with a progress bar.

    Raises:
      UserError: the address cannot be reached, or the connection broke; nothing is left at ``output``.
    """
    import http.client
    import sys
    import urllib.request

    from tqdm import tqdm

    from asr_core.utils.files import atomic_path

    try:
        with (
            urllib.request.urlopen(url, timeout=60) as response,
            atomic_path(output) as tmp,
            open(tmp, "wb") as f,
        ):
            size = int(response.headers.get("Content-Length") or 0)
            got = 0
            with tqdm(
                total=size or None,
                unit="B",
                unit_scale=True,
                desc=Path(output).name,
                disable=not sys.stderr.isatty(),
            ) as bar:
                while block := response.read(_BLOCK):
                    f.write(block)
                    got += len(block)
                    bar.update(len(block))
            if got < size:
                raise UserError(
                    f"the download of {url} broke off after {got} of {size} bytes; start the same command again"
                )
    except (OSError, ValueError, http.client.HTTPException) as e:
        raise UserError(
            f"cannot download {url}: {e}; you can fetch it by other means and give its folder with --dl-dir"
        ) from e


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, DownloadOptions)
    opts = from_params(DownloadOptions, parser.parse_args(argv))
    if not opts.url or not opts.output:
        parser.error("--url and --output are needed")
    setup_logger()
    logging.info("downloading %s", opts.url)
    run_program(lambda: fetch(opts))


if __name__ == "__main__":
    main()
