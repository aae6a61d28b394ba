"""Join manifests into one, in order or shuffled by a seed; memory does not grow with their size."""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from asr_core.cli.program import parse_and_run
from asr_core.utils.options import option


@dataclass
class CombineOptions:
    """Joining: inputs, output and order."""

    manifests: Tuple[str, ...] = option((), "manifests to join, .jsonl.gz", positional=True)
    output: str = option("", "manifest to write, .jsonl.gz", needed=True)
    shuffle: bool = option(False, "shuffle the lines")
    seed: int = option(42, "seed of the order")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parse_and_run(CombineOptions, __doc__, argv, _run)


def _run(opts: CombineOptions) -> None:
    from asr_core.data.manifest_lines import combine_manifests

    number = combine_manifests(opts.manifests, opts.output, shuffle=opts.shuffle, seed=opts.seed)
    logging.info("%s: %d lines", opts.output, number)


if __name__ == "__main__":
    main()
