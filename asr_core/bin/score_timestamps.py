"""Compare word times of a decoding with the word alignments of a manifest."""

from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument(
        "manifest", type=Path, help="cuts with word alignments, e.g. data/manifests/fsdd_cuts_test.jsonl.gz"
    )
    parser.add_argument(
        "results", type=Path, nargs="+", help="timestamps-*.jsonl of decode.py --write-timestamps 1"
    )
    args = parser.parse_args(argv)

    def body() -> None:
        from asr_core.decoding.output.word_times import score_timestamps

        score_timestamps(args.manifest, args.results)

    run_program(body)


if __name__ == "__main__":
    main()
