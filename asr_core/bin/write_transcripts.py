"""Write the transcripts of manifests of supervisions or cuts to a text file, one a line; cuts of changed speed are left out."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, add_options, from_params, option

_OTHER_SPEED = re.compile(r"_sp\d+(\.\d+)?$")


@dataclass
class TranscriptOptions:
    """Transcripts: where to write."""

    output: str = option("", "text file to write")


def texts_of(path: Path) -> Iterator[str]:
    """The transcripts of a manifest of supervisions or cuts, in order, those that are empty left out.

    Raises:
      UserError: the manifest is missing or damaged.
    """
    import json

    from asr_core.data.manifest import open_lines

    with open_lines(path) as lines:
        for line in lines:
            item = json.loads(line)
            if _OTHER_SPEED.search(item["id"]):
                continue
            for supervision in item.get("supervisions", [item] if "text" in item else []):
                if text := (supervision.get("text") or "").strip():
                    yield text


def write(inputs: Sequence[Path], opts: TranscriptOptions) -> int:
    """Write the file; returns the number of its lines."""
    from asr_core.utils.files import atomic_path

    number = 0
    with atomic_path(opts.output) as tmp, open(tmp, "w", encoding="utf-8") as out:
        for path in inputs:
            for text in texts_of(path):
                out.write(f"{text}\n")
                number += 1
        if not number:
            raise UserError(f"no transcripts in {', '.join(map(str, inputs))}")
    return number


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    parser.add_argument("manifests", nargs="+", type=Path, help="manifests, .jsonl.gz")
    add_options(parser, TranscriptOptions)
    args = parser.parse_args(argv)
    opts = from_params(TranscriptOptions, args)
    if not opts.output:
        parser.error("--output is needed")
    setup_logger()
    run_program(lambda: logging.info("%s: %d lines", opts.output, write(args.manifests, opts)))


if __name__ == "__main__":
    main()
