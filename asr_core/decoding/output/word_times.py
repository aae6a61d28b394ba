"""Accuracy of word times: a decoding's compared with the word alignments of a manifest.

Words that were recognised right are compared, as the alignment of both word sequences pairs them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from asr_core.data.manifest import iterate_cuts
from asr_core.text.scoring import NO_WORD, align_words
from asr_core.text.tables import format_columns
from asr_core.text.transcripts import read_records
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from lhotse.cut import Cut

_CLOSE = (0.05, 0.1, 0.2)  # seconds within which times count as close
_ROUNDING = 1e-9  # times are decimal fractions: a difference of just 50 ms is close


class WordTimes(NamedTuple):
    """A word and its start and end in seconds."""

    word: str
    start: float
    end: float


def manifest_times(cuts: "Iterable[Cut]") -> Dict[str, List[WordTimes]]:
    """Return the aligned words of each cut that has any, by its id."""
    times: Dict[str, List[WordTimes]] = {}
    for cut in cuts:
        alignments = (s.alignment["word"] for s in cut.supervisions if s.alignment and "word" in s.alignment)
        words = [
            WordTimes(item.symbol, item.start, item.end)
            for alignment in alignments
            for item in alignment
            if item.symbol.strip()
        ]
        if words:
            times[cut.id] = words
    return times


def record_times(records: Iterable[Mapping[str, Any]]) -> Dict[str, List[WordTimes]]:
    """Return the words with times of each record that decoding wrote, by its id."""
    return {
        record["id"]: [
            WordTimes(w["w"], w["start"], w["end"]) for w in record.get("words", []) if w["start"] is not None
        ]
        for record in records
    }


def differences(
    true: Mapping[str, Sequence[WordTimes]], found: Mapping[str, Sequence[WordTimes]]
) -> List[Tuple[float, float]]:
    """Return the errors (start, end), in seconds, of each correctly recognised word."""
    out = []
    for cut_id in sorted(true.keys() & found.keys()):
        refs, hyps = iter(true[cut_id]), iter(found[cut_id])
        for ref, hyp in align_words([w.word for w in true[cut_id]], [w.word for w in found[cut_id]]):
            r = next(refs) if ref != NO_WORD else None
            h = next(hyps) if hyp != NO_WORD else None
            if r is not None and h is not None and ref == hyp:
                out.append((h.start - r.start, h.end - r.end))
    return out


def summary(pairs: Sequence[Tuple[float, float]]) -> str:
    """Format a table of the errors of starts and ends."""
    within = (f"within {1000 * seconds:.0f} ms %" for seconds in _CLOSE)
    rows: List[Tuple[str, ...]] = [("", "mean error ms", "mean absolute ms", "median absolute ms", *within)]
    for name, values in zip(("start", "end"), np.asarray(pairs).T):
        off = np.abs(values)
        close = (100 * (off <= seconds + _ROUNDING).mean() for seconds in _CLOSE)
        numbers = (1000 * values.mean(), 1000 * off.mean(), 1000 * np.median(off), *close)
        rows.append((name, *(f"{v:.1f}" for v in numbers)))
    return "\n".join(format_columns(rows))


def score_timestamps(manifest: Path, results: Sequence[Path]) -> None:
    """Print the table of each file of results.

    Raises:
      UserError: the manifest has no word alignments, or they are of another test set.
    """
    true = manifest_times(iterate_cuts(manifest, allow_commands=True))  # no audio is read
    if not true:
        raise UserError(f"{manifest} has no word alignments")
    for path in results:
        pairs = differences(true, record_times(read_records(path)))
        if not pairs:
            raise UserError(f"{path} and {manifest} have no words in common: are they of the same test set?")
        print(f"{path}: {len(pairs)} of {sum(map(len, true.values()))} words compared")
        print(summary(pairs))
