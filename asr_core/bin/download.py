"""Download one file, whole or not at all."""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class DownloadOptions:
    """Download: URL and target."""

    url: str = option("", "address of the file", needed=True)
    output: str = option("", "path to write", needed=True, path=PathKind.OUTPUT)
    gunzip: bool = option(
        False, "the file is compressed by gzip: write its content; <output>.gz is used if it exists"
    )


def _run(opts: DownloadOptions) -> None:
    from asr_core.utils.download import fetch

    fetch(opts.url, opts.output, gunzip=opts.gunzip)


main = program(DownloadOptions, __doc__, _run)


if __name__ == "__main__":
    main()
