"""Fit the map from confidences of words to probabilities that they are right, on a decoding of a development set.

It is stored beside the checkpoints, where decoding finds it. Fit on other data than the test sets.
"""

import logging
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser


class Words(NamedTuple):
    """Confidences as they were before any calibration, and whether each word was right."""

    confidences: List[float]
    right: List[bool]


def words_by_kind(paths: Iterable[Path], normalize: str = "none") -> Dict[str, Words]:
    """The words of ``timestamps-*.jsonl`` files, by what their confidences are of.

    Raises:
      UserError: a file is damaged, or has no confidences.
    """
    from asr_core.decoding.output.calibration import right_words
    from asr_core.text.normalize import normalize_text
    from asr_core.text.transcripts import read_records

    out: Dict[str, Words] = {}
    for path in paths:
        records = read_records(path)
        if not records:
            raise UserError(f"{path} has no utterances")
        for record in records:
            if "confidence_kind" not in record or "words" not in record:
                raise UserError(
                    f"{path} has no confidences: decode with --write-confidence 1, and take its timestamps-*.jsonl"
                )
            hyp = [(normalize_text(w["w"], normalize), w) for w in record["words"]]
            hyp = [(text, w) for text, w in hyp if text]
            right = right_words(normalize_text(record["ref"], normalize).split(), [text for text, _ in hyp])
            words = out.setdefault(record["confidence_kind"], Words([], []))
            for (_, w), ok in zip(hyp, right):
                if "confidence" in w:
                    words.confidences.append(w.get("raw_confidence", w["confidence"]))
                    words.right.append(ok)
    return out


def calibrate(exp_dir: Path, results: Sequence[Path], evaluate: Sequence[Path], normalize: str) -> None:
    """Fit a map for each kind of confidences in ``results``, store them, and print how good they are."""
    from asr_core.decoding.output.calibration import fit, load_calibrations, save_calibrations
    from asr_core.text.normalize import check_normalization
    from asr_core.utils.log import setup_logger

    setup_logger()
    check_normalization(normalize)
    if not exp_dir.is_dir():
        raise UserError(f"no folder --exp-dir {exp_dir}")
    fitting, testing = words_by_kind(results, normalize), words_by_kind(evaluate, normalize)
    strange = sorted(testing.keys() - fitting.keys())
    if strange:
        raise UserError(
            f"--evaluate: no map is fitted for {strange[0]!r}; the files fitted on have: {', '.join(sorted(fitting))}"
        )
    maps = load_calibrations(exp_dir)
    maps.update({kind: fit(*words) for kind, words in fitting.items()})
    path = save_calibrations(exp_dir, maps)
    logging.info("%s", path)
    for kind in fitting:
        print(f"{kind}: p = sigmoid({maps[kind].scale:.4f} * logit(c) + {maps[kind].offset:.4f})")
        print(
            _table(
                maps[kind],
                {"fitted on": fitting[kind], **({"evaluated on": testing[kind]} if kind in testing else {})},
            )
        )


def _table(calibration: Any, sets: Dict[str, Words]) -> str:
    from asr_core.decoding.output.calibration import expected_calibration_error, normalized_cross_entropy
    from asr_core.text.tables import format_columns

    rows: List[tuple] = [("", "words", "wrong", "ECE before", "after", "NCE before", "after")]
    for name, (before, right) in sets.items():
        after = [calibration(c) for c in before]
        eces = (expected_calibration_error(c, right) for c in (before, after))
        nces = (normalized_cross_entropy(c, right) for c in (before, after))
        rows.append((name, len(right), len(right) - sum(right), *(f"{v:.4f}" for v in (*eces, *nces))))
    return "\n".join(format_columns(rows))


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__.split("\n\n")[0])
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
    run_program(lambda: calibrate(args.exp_dir, args.results, args.evaluate, args.normalize))


if __name__ == "__main__":
    main()
