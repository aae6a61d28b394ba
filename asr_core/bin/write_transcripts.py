"""Write the transcripts of manifests to a text file, a line each, without cuts of changed speed."""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from asr_core.cli.program import parse_and_run
from asr_core.utils.options import option


@dataclass
class TranscriptOptions:
    """Transcripts: inputs and output."""

    manifests: Tuple[str, ...] = option((), "manifests of supervisions or cuts, .jsonl.gz", positional=True)
    output: str = option("", "text file to write", needed=True)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parse_and_run(TranscriptOptions, __doc__, argv, _run)


def _run(opts: TranscriptOptions) -> None:
    from asr_core.data.manifest_lines import write_transcripts

    logging.info("%s: %d lines", opts.output, write_transcripts(opts.manifests, opts.output))


if __name__ == "__main__":
    main()
