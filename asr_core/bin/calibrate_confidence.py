"""Calibrate the confidences of words on a decoding of a development set.

The map from confidences to probabilities that words are right is stored beside the checkpoints,
where decoding finds it. Fit it on other data than the test sets.
"""

from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser((__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "results", type=Path, nargs="+", help="timestamps-*.jsonl of a development set, with confidences"
    )
    parser.add_argument(
        "--exp-dir",
        type=Path,
        required=True,
        help="folder of the checkpoints, where confidence.json is stored",
    )
    parser.add_argument(
        "--evaluate",
        type=Path,
        nargs="+",
        default=[],
        help="timestamps-*.jsonl of other sets to judge the map by",
    )
    parser.add_argument(
        "--normalize", default="none", help="how words are changed before they are compared, as for decoding"
    )
    args = parser.parse_args(argv)

    def body() -> None:
        from asr_core.decoding.output.calibration_fit import calibrate

        calibrate(args.exp_dir, args.results, args.evaluate, args.normalize)

    run_program(body)


if __name__ == "__main__":
    main()
