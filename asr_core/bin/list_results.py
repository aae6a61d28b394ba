"""List the word error rates of all decodings in an experiment's folder, best first.

Of a decoding with several results, one for each weight of a language model, the best is listed.
"""

from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument("exp_dir", type=Path, help="the experiment's folder")
    parser.add_argument(
        "--max-wer", type=float, default=None, help="fail if any WER, in percent, is above this"
    )
    args = parser.parse_args(argv)

    def body() -> None:
        from asr_core.decoding.output.result_list import list_results

        list_results(args.exp_dir, args.max_wer)

    run_program(body)


if __name__ == "__main__":
    main()
