"""Write the transcripts of manifests to a text file, a line each, without cuts of changed speed."""

import logging
from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class TranscriptOptions:
    """Transcripts: inputs and output."""

    manifests: Tuple[str, ...] = option(
        (), "manifests of supervisions or cuts, .jsonl.gz", positional=True, path=PathKind.FILE
    )
    output: str = option("", "text file to write", needed=True, path=PathKind.OUTPUT)


def _run(opts: TranscriptOptions) -> None:
    from asr_core.data.manifest_lines import write_transcripts

    logging.info("%s: %d lines", opts.output, write_transcripts(opts.manifests, opts.output))


main = program(TranscriptOptions, __doc__, _run)


if __name__ == "__main__":
    main()
