"""Calibration: a monotone map from confidences to the probability that a word is correct.

The map is logistic in the log-odds of the confidence, p = sigmoid(scale * logit(c) + offset) with
scale > 0 (Platt 1999), fitted by maximum likelihood on words known to be right or wrong. A few
hundred wrong words determine no more than two numbers.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from asr_core.decoding.output.options import ConfidenceOptions
from asr_core.text.scoring import NO_WORD, align_words
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic

FILE_NAME = "confidence.json"
_EDGE = 1e-6  # confidences are kept this far from 0 and 1, whose log-odds are infinite
# Of the logarithm of the scale, which would grow without limit if a threshold separated the words
_PRIOR = 1e-3
_STEPS = 200  # of Newton's method, which needs about ten unless the words are almost separable
_MAX_STEP = 1.0  # far from the optimum whole Newton steps diverge


@dataclass(frozen=True)
class Calibration:
    """The map p = sigmoid(scale * logit(c) + offset).

    Attributes:
      scale, offset: the map.
      words: number of words that it was fitted on.
      wrong: number of those that were wrong.
    """

    scale: float = 1.0
    offset: float = 0.0
    words: int = 0
    wrong: int = 0

    def __call__(self, confidence: float) -> float:
        """Return the probability that a word of this confidence is correct."""
        return _sigmoid(self.scale * _logit(confidence) + self.offset)


def kind_of(method: str, chunk_size: int, opts: ConfidenceOptions) -> str:
    """Return one line that describes what a map is valid for.

    Args:
      method: name of the decoding method.
      chunk_size: chunk size of the encoder, in 50-Hz frames; -1 for whole utterances.
      opts: options of confidences.
    """
    alpha = "" if opts.confidence_measure in ("prob", "gibbs") else f"-{opts.confidence_alpha:.4g}"
    chunks = f" chunk-{chunk_size}" if chunk_size > 0 else ""
    return f"{method}{chunks} {opts.confidence_measure}{alpha} {opts.confidence_aggregation}"


def fit(confidences: Sequence[float], right: Sequence[bool]) -> Calibration:
    """Fit the map by maximum likelihood to which words are correct.

    Args:
      confidences: confidences of words.
      right: whether each word is.

    Raises:
      UserError: all words are right, or all wrong: nothing can be learnt from them.
    """
    y = np.asarray(right, dtype=np.float64)
    if not 0 < y.sum() < len(y):
        kind = "right" if len(y) and y.all() else "wrong"
        raise UserError(
            f"all {len(y)} words are {kind}: calibration needs both kinds; take a longer or harder set"
        )
    x = np.array([_logit(c) for c in confidences])
    log_scale, offset = 0.0, 0.0
    for _ in range(_STEPS):  # Newton's method in (log scale, offset), damped
        scale = math.exp(log_scale)
        p = 1 / (1 + np.exp(-np.clip(scale * x + offset, -50, 50)))
        weight = p * (1 - p) + 1e-9
        inner = scale * x
        gradient = np.array([((p - y) * inner).sum() + _PRIOR * log_scale, (p - y).sum()])
        cross = (weight * inner).sum()
        hessian = np.array([[(weight * inner * inner).sum() + _PRIOR, cross], [cross, weight.sum()]])
        step = np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient).clip(-_MAX_STEP, _MAX_STEP)
        log_scale, offset = log_scale - step[0], offset - step[1]
        if abs(step).max() < 1e-9:
            break
    return Calibration(math.exp(log_scale), float(offset), len(y), int(len(y) - y.sum()))


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, section 2).

    It is the mean distance between confidence and share of right words over bins of equal width,
    weighted by their numbers of words.
    """
    sums = [[0.0, 0.0, 0] for _ in range(bins)]
    for c, r in zip(confidences, right):
        entry = sums[min(int(c * bins), bins - 1)]
        entry[0] += c
        entry[1] += r
        entry[2] += 1
    return sum(abs(c - r) for c, r, _ in sums) / max(1, len(confidences))


def normalized_cross_entropy(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Return the normalised cross entropy of NIST.

    It is the share of the uncertainty about which words are right that the confidences remove: 1 at
    best, below 0 if they mislead.
    """
    n, good = len(right), sum(right)
    if not 0 < good < n:
        return float("nan")
    rate = good / n
    prior = -(good * math.log(rate) + (n - good) * math.log(1 - rate))
    kept = (min(max(c, _EDGE), 1 - _EDGE) for c in confidences)
    cost = -sum(math.log(c if r else 1 - c) for c, r in zip(kept, right))
    return (prior - cost) / prior


def load_calibrations(folder: Path) -> Dict[str, Calibration]:
    """Read the maps next to a checkpoint, by kind; none if there is no such file.

    Raises:
      UserError: the file is damaged.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return {}
    try:
        entries: Dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        maps = {kind: Calibration(**entry) for kind, entry in entries.items()}
        if any(
            not (m.scale > 0 and math.isfinite(m.scale) and math.isfinite(m.offset)) for m in maps.values()
        ):
            raise ValueError("scale must be positive, all numbers finite")
        return maps
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise UserError(
            f"{path} is damaged ({e}); recreate it with calibrate_confidence, or remove it"
        ) from e


def save_calibrations(folder: Path, maps: Mapping[str, Calibration]) -> Path:
    """Write the maps next to a checkpoint; return the file."""
    path = Path(folder) / FILE_NAME
    write_text_atomic(
        path, json.dumps({kind: asdict(m) for kind, m in maps.items()}, indent=2, sort_keys=True) + "\n"
    )
    return path


def right_words(ref: Sequence[str], hyp: Sequence[str]) -> List[bool]:
    """Return for each word of ``hyp`` whether it is correct in the alignment with ``ref``."""
    return [r == h for r, h in align_words(ref, hyp) if h != NO_WORD]


def _logit(c: float) -> float:
    c = min(max(c, _EDGE), 1 - _EDGE)
    return math.log(c) - math.log1p(-c)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
