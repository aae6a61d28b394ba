"""Download one file, whole or not at all."""

from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import parse_and_run
from asr_core.utils.options import option


@dataclass
class DownloadOptions:
    """Download: URL and target."""

    url: str = option("", "address of the file", needed=True)
    output: str = option("", "path to write", needed=True)
    gunzip: bool = option(
        False, "the file is compressed by gzip: write what is in it; <output>.gz is taken where it is there"
    )


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parse_and_run(DownloadOptions, __doc__, argv, _run)


def _run(opts: DownloadOptions) -> None:
    from asr_core.utils.download import fetch

    fetch(opts.url, opts.output, gunzip=opts.gunzip)


if __name__ == "__main__":
    main()
