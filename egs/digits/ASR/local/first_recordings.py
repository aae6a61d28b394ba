#!/usr/bin/env python3
"""Print the audio paths and transcripts of a manifest's first cuts, separated by tabs."""

import sys
from pathlib import Path

from lhotse import CutSet

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("manifest", type=Path, help="cuts, .jsonl.gz")
    parser.add_argument("--num", type=int, default=3, help="number of cuts")
    args = parser.parse_args()
    if not args.manifest.is_file():
        raise UserError(f"no {args.manifest}; run prepare.sh first")
    for _, cut in zip(range(args.num), CutSet.from_jsonl_lazy(args.manifest)):
        sys.stdout.write(f"{cut.recording.sources[0].source}\t{cut.supervisions[0].text}\n")


if __name__ == "__main__":
    run_program(main)
