"""Calibration of confidences on decodings of a development set."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, Sequence, Tuple

from asr_core.decoding.output.calibration import (
    Calibration,
    expected_calibration_error,
    fit,
    load_calibrations,
    normalized_cross_entropy,
    right_words,
    save_calibrations,
)
from asr_core.text.normalize import check_normalization, normalize_text
from asr_core.text.tables import format_columns
from asr_core.text.transcripts import read_records
from asr_core.utils.errors import UserError
from asr_core.utils.log import setup_logger


@dataclass
class Words:
    """Confidences of words before any calibration, and whether each word was correct."""

    confidences: List[float] = field(default_factory=list)
    right: List[bool] = field(default_factory=list)


def words_by_kind(paths: Iterable[Path], normalize: str = "none") -> Dict[str, Words]:
    """Read the words of ``timestamps-*.jsonl`` files, by the kind of their confidences.

    Raises:
      UserError: a file is damaged, or has no confidences.
    """
    out: Dict[str, Words] = {}
    for path in paths:
        records = read_records(path)
        if not records:
            raise UserError(f"{path} has no utterances")
        for record in records:
            if "confidence_kind" not in record or "words" not in record:
                raise UserError(
                    f"{path} has no confidences: decode with --write-confidence 1, "
                    "and take its timestamps-*.jsonl"
                )
            hyp = [(normalize_text(w["w"], normalize), w) for w in record["words"]]
            hyp = [(text, w) for text, w in hyp if text]
            right = right_words(normalize_text(record["ref"], normalize).split(), [text for text, _ in hyp])
            words = out.setdefault(record["confidence_kind"], Words())
            for (_, w), is_right in zip(hyp, right):
                if "confidence" in w:
                    words.confidences.append(w.get("raw_confidence", w["confidence"]))
                    words.right.append(is_right)
    return out


def calibrate(
    exp_dir: Path, results: Sequence[Path], evaluate: Sequence[Path], normalize: str = "none"
) -> None:
    """Fit a map for each kind of confidence, store the maps, and print their quality.

    Args:
      exp_dir: folder of the checkpoints, where the maps are stored.
      results: files of records to fit on.
      evaluate: files of records of other sets to judge the maps by.
      normalize: normalization of words before they are compared.

    Raises:
      UserError: a file is missing or damaged, or has no confidences.
    """
    setup_logger()
    check_normalization(normalize)
    if not exp_dir.is_dir():
        raise UserError(f"no folder --exp-dir {exp_dir}")
    fitting, testing = words_by_kind(results, normalize), words_by_kind(evaluate, normalize)
    strange = sorted(testing.keys() - fitting.keys())
    if strange:
        raise UserError(
            f"--evaluate: no map is fitted for {strange[0]!r}; "
            f"the files fitted on have: {', '.join(sorted(fitting))}"
        )
    maps = load_calibrations(exp_dir)
    maps.update({kind: fit(words.confidences, words.right) for kind, words in fitting.items()})
    logging.info("%s", save_calibrations(exp_dir, maps))
    for kind in fitting:
        print(f"{kind}: p = sigmoid({maps[kind].scale:.4f} * logit(c) + {maps[kind].offset:.4f})")
        sets = {"fitted on": fitting[kind]}
        if kind in testing:
            sets["evaluated on"] = testing[kind]
        print(_table(maps[kind], sets))


def _table(calibration: Calibration, sets: Mapping[str, Words]) -> str:
    rows: List[Tuple[object, ...]] = [("", "words", "wrong", "ECE before", "after", "NCE before", "after")]
    for name, words in sets.items():
        right = words.right
        calibrated = [calibration(c) for c in words.confidences]
        eces = (expected_calibration_error(c, right) for c in (words.confidences, calibrated))
        nces = (normalized_cross_entropy(c, right) for c in (words.confidences, calibrated))
        rows.append((name, len(right), len(right) - sum(right), *(f"{v:.4f}" for v in (*eces, *nces))))
    return "\n".join(format_columns(rows))
