"""Join manifests into one, in a random order that depends on a seed alone if wanted; memory does not grow with their size."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, List, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class CombineOptions:
    """Joining: where to write, in which order."""

    output: str = option("", "manifest to write, .jsonl.gz")
    shuffle: bool = option(False, "shuffle the lines")
    seed: int = option(42, "seed of the order")


def combine(inputs: Sequence[Path], opts: CombineOptions) -> int:
    """Write the lines of all ``inputs``; returns their number. The same input and seed give the same bytes.

    Raises:
      UserError: a manifest is missing or damaged.
    """
    import gzip
    import random
    import tempfile

    from asr_core.utils.files import atomic_path

    target = Path(opts.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as lines:
        starts = _spool(inputs, lines)
        spans = list(zip(starts, starts[1:]))
        if opts.shuffle:
            random.Random(opts.seed).shuffle(spans)
        with (
            atomic_path(target) as tmp,
            open(tmp, "wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as out,
        ):
            for start, end in spans:
                lines.seek(start)
                out.write(lines.read(end - start))
    return len(spans)


def _spool(inputs: Sequence[Path], lines: BinaryIO) -> List[int]:
    """Write all lines, not compressed; returns where each starts, and the end."""
    from asr_core.data.manifest import open_lines

    starts = [0]
    for path in inputs:
        with open_lines(path) as f:
            for line in f:
                starts.append(starts[-1] + lines.write(line if line.endswith(b"\n") else line + b"\n"))
    return starts


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    parser.add_argument("manifests", nargs="+", type=Path, help="manifests to join, .jsonl.gz")
    add_options(parser, CombineOptions)
    args = parser.parse_args(argv)
    opts = from_params(CombineOptions, args)
    if not opts.output:
        parser.error("--output is needed")
    setup_logger()
    run_program(lambda: logging.info("%s: %d lines", opts.output, combine(args.manifests, opts)))


if __name__ == "__main__":
    main()
