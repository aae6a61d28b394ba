"""HTML reports of earlier decodings, made from their result files."""

from pathlib import Path
from typing import List, Mapping

from asr_core.data.manifest import iterate_cuts
from asr_core.decoding.output.audio_players import players_for
from asr_core.decoding.output.options import ReportOptions
from asr_core.decoding.output.utterance import Decoded
from asr_core.text.html_report import render, words_by_id
from asr_core.text.normalize import check_normalization
from asr_core.text.scoring import score_utterances
from asr_core.text.transcripts import read_records, read_transcripts, utterances_of
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic


def write_reports(opts: ReportOptions) -> None:
    """Write a report of each file of results and print its path.

    Args:
      opts: the results, and what the reports show.

    Raises:
      UserError: a file is missing or damaged.
    """
    check_normalization(opts.normalize)
    paths = [path for given in opts.results for path in _results_of(Path(given))]
    if opts.out and len(paths) > 1:
        raise UserError(
            f"--out is for one report, there are {len(paths)} results; leave it out, or name one file"
        )
    found = iterate_cuts(opts.cuts, allow_commands=True) if opts.cuts else ()  # only files are played
    cuts = {cut.id: Decoded.of_cut(cut, {}) for cut in found}
    for path in paths:
        print(_write(path, cuts, opts))


def _results_of(path: Path) -> List[Path]:
    """Return the file itself, or the ``recogs-*.txt`` of a folder."""
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("recogs-*.txt"))
    if not found:
        raise UserError(f"no recogs-*.txt in {path}; run decode.py first")
    return found


def _write(path: Path, cuts: Mapping[str, Decoded], opts: ReportOptions) -> Path:
    """Write the report of one file of results; return the report's path."""
    results = read_transcripts(path)
    given = read_transcripts(opts.ref) if opts.ref else results
    refs = given.refs or (given.texts if opts.ref else {})
    if not refs:
        raise UserError(f"{path} has no references: give some with --ref")
    records = _records_beside(path)
    speakers = {**{key: cut.speaker for key, cut in cuts.items()}, **given.speakers, **results.speakers}
    utterances = utterances_of(refs, results.texts, speakers, opts.normalize)
    score = score_utterances(utterances)
    out = Path(opts.out) if opts.out else path.with_name(f"report{_after_kind(path)}.html")
    audio = {key: cut.audio for key, cut in cuts.items() if key in refs and cut.audio is not None}
    page = render(
        path.stem,
        path.parent.name,
        utterances,
        score,
        players_for(audio, score, opts, out.absolute().parent),
        words_by_id(read_records(records)) if records.is_file() else {},
    )
    write_text_atomic(out, page)
    return out


def _records_beside(path: Path) -> Path:
    """Return the file with the times of the words of ``recogs-*.txt``."""
    if path.suffix == ".jsonl":
        return path
    return path.with_name("timestamps" + path.stem[len("recogs") :] + ".jsonl")


def _after_kind(path: Path) -> str:
    """Return the name of a file of results from its first hyphen on, without its ending."""
    return path.stem[path.stem.find("-") :] if "-" in path.stem else ""
