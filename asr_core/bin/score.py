"""Score hypotheses against references: error rates with bootstrap intervals, and how probably one system is better than another."""

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params, option, params_of


@dataclasses.dataclass
class ScoreProgramOptions:
    """Scoring: what is compared, and what is written."""

    ref: str = option("", "references; left out: those of the hypotheses' files, e.g. recogs-*.txt")
    normalize: str = option(
        "none", "how both are changed before they are compared, e.g. no-tags+no-punct+lower"
    )
    characters: bool = option(False, "count characters in place of words")
    cer: bool = option(
        False, "the table also has character error rates and the share of sentences without errors"
    )
    speakers: str = option("", "who spoke: a file of 'utterance speaker' lines")
    missing_as_empty: bool = option(False, "utterances without hypothesis count as recognised as nothing")
    errs: str = option("", "write the first system's alignments and counts by word there")
    scores: str = option("", "write the first system's rates by speaker and most frequent confusions there")
    level: float = option(0.95, "of the interval of differences between systems")


def score(params: AttributeDict) -> None:
    """Score ``params.hyp`` as the other options say."""
    from asr_core.text.normalize import check_normalization
    from asr_core.text.scoring import format_errs, score_utterances
    from asr_core.text.tables import format_columns, format_scores, rate_header, rate_row
    from asr_core.utils.files import write_text_atomic

    opts = from_params(ScoreProgramOptions, params)
    check_normalization(opts.normalize)
    if not 0 < opts.level < 1:
        raise UserError(f"--level must be between 0 and 1, got {opts.level}")
    systems = _systems(params.hyp, opts)
    scores = {name: score_utterances(utterances) for name, utterances in systems.items()}
    unit = "character" if opts.characters else "word"
    rows = [
        rate_header(opts.cer),
        *(rate_row(name, systems[name], scored, opts.cer) for name, scored in scores.items()),
    ]
    print("\n".join([f"{unit} error rates", *format_columns(rows), *_comparisons(scores, opts.level)]))
    first = next(iter(systems))
    if opts.errs:
        write_text_atomic(opts.errs, format_errs(scores[first]))
    if opts.scores:
        write_text_atomic(opts.scores, format_scores(systems[first], scores[first], unit))


def _systems(paths: Sequence[str], opts: ScoreProgramOptions) -> Dict[str, List[Any]]:
    """The utterances of each system, by the name of its file."""
    from asr_core.text.transcripts import read_transcripts, utterances_of

    files = [read_transcripts(path) for path in paths]
    refs, speakers = _references(opts.ref, files)
    if opts.speakers:
        speakers = read_transcripts(opts.speakers).texts
    names = [Path(path).name for path in paths]
    names = names if len(set(names)) == len(names) else list(paths)
    if len(set(names)) < len(names):
        raise UserError("--hyp: a file is given twice")
    pairs = zip(names, files)
    return {
        n: utterances_of(refs, f.texts, speakers, opts.normalize, opts.characters, opts.missing_as_empty)
        for n, f in pairs
    }


def _references(path: str, files: Sequence[Any]) -> Tuple[Dict[str, str], Dict[str, str]]:
    from asr_core.text.transcripts import pair_of, read_transcripts

    if not path:
        refs, speakers = pair_of(files)
        if not refs:
            raise UserError("the hypotheses' files have no references: give some with --ref")
        return refs, speakers
    given = read_transcripts(path)
    _, speakers = pair_of([given, *files])
    return given.refs or given.texts, speakers


def _comparisons(scores: Dict[str, Any], level: float) -> List[str]:
    """A line for each system after the first: how it compares with that."""
    from asr_core.text.scoring import difference_interval, probability_of_improvement

    (first, base), *others = scores.items()
    lines = []
    for name, other in others:
        low, high = difference_interval(base.per_utterance, other.per_utterance, level)
        better = probability_of_improvement(base.per_utterance, other.per_utterance)
        change = other.total.wer - base.total.wer
        interval = f"{100 * level:g} % interval {low:+.2f} .. {high:+.2f}"
        lines.append(
            f"{name} against {first}: {change:+.2f} ({interval}), better with probability {better:.3f}"
        )
    return lines


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--hyp",
        nargs="+",
        required=True,
        metavar="FILE",
        help="hypotheses: recogs-*.txt or *.jsonl of a decoding, TSV, or lines 'utterance word word ...'; all are compared with the first",
    )
    add_options(parser, ScoreProgramOptions)
    params = params_of(parser.parse_args(argv))
    run_program(lambda: score(params))


if __name__ == "__main__":
    main()
