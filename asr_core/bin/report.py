"""Write HTML reports of decodings: alignments in colour, errors by word and speaker, audio players. They open without a network."""

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, Parser, add_options, from_params, option, params_of


@dataclasses.dataclass
class ReportOptions:
    """Report: what it shows, and where it goes."""

    cuts: str = option(
        "",
        "manifest of the test set, for players and speakers; file names in it are taken from the current folder",
    )
    ref: str = option("", "references; left out: those of the results' files")
    normalize: str = option(
        "none", "how both are changed before they are compared, e.g. no-tags+no-punct+lower"
    )
    embed_audio: bool = option(False, "the report holds the audio itself, in place of links to it")
    embed_limit: float = option(
        50.0, "megabytes of audio that the report may hold; the utterances with the most errors go first"
    )
    out: str = option("", "the report's file; left out: report-*.html beside the results")


def report(params: AttributeDict) -> None:
    """Write a report of each of ``params.results``."""
    from asr_core.text.normalize import check_normalization

    opts = from_params(ReportOptions, params)
    check_normalization(opts.normalize)
    if not opts.embed_limit > 0:
        raise UserError(f"--embed-limit must be above 0, got {opts.embed_limit}")
    paths = [path for given in params.results for path in _results_of(Path(given))]
    if opts.out and len(paths) > 1:
        raise UserError(
            f"--out is for one report, there are {len(paths)} results; leave it out, or name one file"
        )
    cuts = _cuts(opts.cuts)
    for path in paths:
        print(_write(path, cuts, opts))


def _results_of(path: Path) -> List[Path]:
    """A file itself; of a folder its ``recogs-*.txt``."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("recogs-*.txt"))
    if not found:
        raise UserError(f"no recogs-*.txt in {path}; run decode.py first")
    return found


def _cuts(manifest: str) -> Dict[str, Any]:
    """Audio and speaker of each cut, as :class:`~asr_core.decoding.offline.Decoded`, by its id."""
    if not manifest:
        return {}
    from asr_core.data.manifest import iterate_cuts
    from asr_core.decoding.offline import Decoded

    return {cut.id: Decoded.of_cut(cut, {}, 0.0) for cut in iterate_cuts(manifest)}


def _write(path: Path, cuts: Dict[str, Any], opts: ReportOptions) -> Path:
    """Write the report of one file of results; returns the report's path."""
    from asr_core.decoding.output.audio_players import players_for
    from asr_core.text.html_report import render, words_by_id
    from asr_core.text.scoring import score_utterances
    from asr_core.text.transcripts import read_records, read_transcripts, utterances_of
    from asr_core.utils.files import write_text_atomic

    results = read_transcripts(path)
    given = read_transcripts(opts.ref) if opts.ref else results
    refs = given.refs or (given.texts if opts.ref else {})
    if not refs:
        raise UserError(f"{path} has no references: give some with --ref")
    records = (
        path
        if path.suffix == ".jsonl"
        else path.with_name("timestamps" + path.stem[len("recogs") :] + ".jsonl")
    )
    words = words_by_id(read_records(records)) if records.is_file() else {}
    speakers = {**{key: cut.speaker for key, cut in cuts.items()}, **given.speakers, **results.speakers}
    utterances = utterances_of(refs, results.texts, speakers, opts.normalize)
    score = score_utterances(utterances)
    out = (
        Path(opts.out)
        if opts.out
        else path.with_name(f"report{path.stem[path.stem.find('-') :] if '-' in path.stem else ''}.html")
    )
    audio = {u.cut_id: cuts[u.cut_id].audio for u in utterances if u.cut_id in cuts and cuts[u.cut_id].audio}
    players = players_for(audio, score, opts, out.absolute().parent)
    write_text_atomic(out, render(path.stem, path.parent.name, utterances, score, players, words))
    return out


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parser = Parser(__doc__)
    parser.add_argument(
        "results",
        nargs="+",
        help="recogs-*.txt or timestamps-*.jsonl of a decoding, or folders with recogs-*.txt, e.g. exp/greedy_search",
    )
    add_options(parser, ReportOptions)
    params = params_of(parser.parse_args(argv))
    run_program(lambda: report(params))


if __name__ == "__main__":
    main()
