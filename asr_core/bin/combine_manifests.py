"""Join manifests into one, in order or shuffled by a seed; memory does not grow with their size."""

import logging
from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class CombineOptions:
    """Joining: inputs, output and order."""

    manifests: Tuple[str, ...] = option(
        (), "manifests to join, .jsonl.gz", positional=True, path=PathKind.FILE
    )
    output: str = option("", "manifest to write, .jsonl.gz", needed=True, path=PathKind.OUTPUT)
    shuffle: bool = option(False, "shuffle the lines")
    seed: int = option(42, "seed of the order", at_least=0)


def _run(opts: CombineOptions) -> None:
    from asr_core.data.manifest_lines import combine_manifests

    number = combine_manifests(opts.manifests, opts.output, shuffle=opts.shuffle, seed=opts.seed)
    logging.info("%s: %d lines", opts.output, number)


main = program(CombineOptions, __doc__, _run)


if __name__ == "__main__":
    main()
