"""Compare word times of a decoding with those of a manifest whose supervisions have word alignments.

Words that were recognised right are compared, as the alignment of both word sequences pairs them.
"""

from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser

_CLOSE = (0.05, 0.1, 0.2)  # seconds


class WordTimes(NamedTuple):
    """A word and when it begins and ends, in seconds."""

    word: str
    start: float
    end: float


def manifest_times(cuts: Iterable[Any]) -> Dict[str, List[WordTimes]]:
    """The aligned words of each cut that has any, by its id."""
    times = {}
    for cut in cuts:
        aligned = [s for s in cut.supervisions if s.alignment and "word" in s.alignment]
        words = [
            WordTimes(item.symbol, item.start, item.end)
            for s in aligned
            for item in s.alignment["word"]
            if item.symbol.strip()
        ]
        if words:
            times[cut.id] = words
    return times


def record_times(records: Iterable[Dict[str, Any]]) -> Dict[str, List[WordTimes]]:
    """The words of each record that decoding wrote, by its id; those without times are left out."""
    return {
        r["id"]: [
            WordTimes(w["w"], w["start"], w["end"]) for w in r.get("words", []) if w["start"] is not None
        ]
        for r in records
    }


def differences(
    true: Dict[str, List[WordTimes]], found: Dict[str, List[WordTimes]]
) -> List[Tuple[float, float]]:
    """Found minus true (start, end) of each word recognised right."""
    from asr_core.text.scoring import NO_WORD, align_words

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
    """A table of how far starts and ends are from the truth."""
    import numpy as np

    from asr_core.text.tables import format_columns

    rows: List[tuple] = [
        (
            "",
            "mean error ms",
            "mean absolute ms",
            "median absolute ms",
            *(f"within {1000 * c:.0f} ms %" for c in _CLOSE),
        )
    ]
    for name, values in zip(("start", "end"), np.asarray(pairs).T):
        off = np.abs(values)
        numbers = (
            1000 * values.mean(),
            1000 * off.mean(),
            1000 * np.median(off),
            *(100 * (off <= c + 1e-9).mean() for c in _CLOSE),
        )
        rows.append((name, *(f"{v:.1f}" for v in numbers)))
    return "\n".join(format_columns(rows))


def score_timestamps(manifest: Path, results: Sequence[Path]) -> None:
    """Print the table of each file of results."""
    from asr_core.data.manifest import iterate_cuts
    from asr_core.text.transcripts import read_records

    true = manifest_times(iterate_cuts(manifest))
    if not true:
        raise UserError(f"{manifest} has no word alignments")
    for path in results:
        pairs = differences(true, record_times(read_records(path)))
        if not pairs:
            raise UserError(f"{path} and {manifest} have no words in common: are they of the same test set?")
        print(f"{path}: {len(pairs)} of {sum(map(len, true.values()))} words compared")
        print(summary(pairs))


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__.split("\n\n")[0])
    parser.add_argument(
        "manifest", type=Path, help="cuts with word alignments, e.g. data/manifests/fsdd_cuts_test.jsonl.gz"
    )
    parser.add_argument(
        "results", type=Path, nargs="+", help="timestamps-*.jsonl of decode.py --write-timestamps 1"
    )
    args = parser.parse_args(argv)
    run_program(lambda: score_timestamps(args.manifest, args.results))


if __name__ == "__main__":
    main()
