"""Cuts of the recordings that a TSV file lists."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

from lhotse import CutSet
from lhotse.cut import MonoCut

from asr_core.data.audio import can_be_cut, read_audio
from asr_core.data.channels import channel_number, pick_channel, silence_note
from asr_core.data.left_out import note_left_out, refuse_losses
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.options import FIRST, MIX
from asr_core.data.patience import patiently
from asr_core.data.preparation_options import TsvOptions
from asr_core.text.normalize import normalize_text
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic
from asr_core.utils.paths import PathLike

_SHOWN = 5


@dataclass(frozen=True)
class TsvLine:
    """One line of a TSV file.

    Attributes:
      where: file and line, for messages.
      number: number of the line, from 1.
      audio: path of the recording.
      text: its transcript.
    """

    where: str
    number: int
    audio: Path
    text: str


def write_tsv_manifests(opts: TsvOptions) -> None:
    """Write the cut manifests of TSV files, and the training transcripts if they are asked for.

    What is left out is listed in ``<prefix>_left_out_<part>.txt``.

    Raises:
      UserError: a file is malformed, or too few of its recordings can be read; nothing is written
        then.
    """
    lines = {
        part: read_tsv(path, opts.on_bad_line, opts.normalize, keep_empty=opts.empty_text == "keep")
        for part, path in opts.files.items()
    }
    made = {
        part: cuts_of_lines(some, opts.sample_rate, opts.nj, opts.channel) for part, some in lines.items()
    }
    for part, (_, left_out) in made.items():
        refuse_losses(opts.files[part], left_out, len(lines[part]), opts.max_unreadable)
    for part, (cuts, left_out) in made.items():
        target = Path(opts.output_dir) / f"{opts.prefix}_cuts_{part}.jsonl.gz"
        if part == "train" and opts.transcript:
            texts = [c.supervisions[0].text for c in cuts]
            write_text_atomic(opts.transcript, "".join(f"{text}\n" for text in texts if text))
        write_cuts(cuts, target)
        note_left_out(target, left_out)
        hours = sum(c.duration for c in cuts) / 3600
        logging.info("%s: %d cuts, %.2f hours, %d left out", target, len(cuts), hours, len(left_out))


def read_tsv(
    path: PathLike, on_bad_line: str = "error", normalize: str = "none", keep_empty: bool = False
) -> List[TsvLine]:
    """Read lines ``audio-path<TAB>transcript``; empty lines at the end are ignored.

    Args:
      path: the file, UTF-8. Relative audio paths are relative to its folder.
      on_bad_line: ``"error"``, or ``"skip"`` with a warning.
      normalize: see :func:`~asr_core.text.normalize.normalize_text`.
      keep_empty: whether a recording may have no transcript.

    Raises:
      UserError: the file cannot be read or has no usable line; or a line is malformed: no tab, more
        than one tab, no audio path, no transcript.
    """
    path = Path(path)
    try:
        raw = _lines(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as e:
        raise UserError(f"{path} is not UTF-8 text ({e.reason} at byte {e.start})") from e
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    lines: List[TsvLine] = []
    bad: List[str] = []
    for number, line in enumerate(raw, 1):
        audio, text, problem = _split(line.rstrip("\r"), keep_empty)
        if problem:
            bad.append(f"{path}:{number}: {problem}")
            continue
        text = normalize_text(text, normalize)
        lines.append(TsvLine(where=f"{path}:{number}", number=number, audio=path.parent / audio, text=text))
    if bad and on_bad_line == "error":
        more = f" (and {len(bad) - 1} more such lines)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0]}{more}; correct it, or leave such lines out with --on-bad-line skip")
    _report(bad, f"{path}: bad lines skipped")
    if not lines:
        raise UserError(f"{path} has no usable line; expected lines of audio-path<TAB>transcript")
    return lines


def _lines(text: str) -> List[str]:
    """Return the lines of ``text`` without the blank ones at its end, but at least one."""
    lines = text.split("\n")
    while len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    return lines


def _split(line: str, keep_empty: bool) -> Tuple[str, str, str]:
    """Return audio path, transcript, and the fault of the line, or ""."""
    if not line.strip():
        return "", "", "empty line; expected audio-path<TAB>transcript"
    fields = line.split("\t")
    if len(fields) != 2:
        return "", "", f"{len(fields) - 1} tabs where one is expected: audio-path<TAB>transcript"
    audio, text = fields[0].strip(), fields[1].strip()
    if not audio:
        return "", "", "no audio path before the tab"
    if text or keep_empty:
        return audio, text, ""
    return (
        audio,
        text,
        "no transcript after the tab; --empty-text keep takes it for a recording without words",
    )


def _report(problems: List[str], title: str) -> None:
    if problems:
        logging.warning("%s: %d", title, len(problems))
        for problem in problems[:_SHOWN]:
            logging.warning("  %s", problem)
        if len(problems) > _SHOWN:
            logging.warning("  ... and %d more", len(problems) - _SHOWN)


class _AudioInfo(NamedTuple):
    num_samples: int
    sample_rate: int
    channels: int
    channel: int
    note: str


def cuts_of_lines(
    lines: Sequence[TsvLine], sample_rate: int = 16000, nj: int = 1, channel: str = FIRST
) -> Tuple[CutSet, List[str]]:
    """Make cuts of the recordings that a TSV file lists, of one channel, resampled when read.

    Every file is decoded once. Those that are missing, unreadable or cut short are left out and
    counted; the first of them are named, and so are those whose channel is silent and another not.

    Args:
      lines: the lines, see :func:`read_tsv`.
      sample_rate: rate of the cuts.
      nj: threads that read audio.
      channel: see :func:`~asr_core.data.options.channel_option`.

    Returns:
      (cuts, a line about each recording that is left out).

    Raises:
      UserError: no recording at all can be read.
    """
    with ThreadPoolExecutor(max(1, nj)) as pool:
        checked = list(pool.map(partial(_check, channel=channel), lines))
    problems = [problem for _, problem in checked if problem]
    _report(problems, f"recordings left out of {len(lines)}")
    found = [(line, info) for line, (info, _) in zip(lines, checked) if info]
    notes = [f"{line.where}: {line.audio}: {info.note}" for line, info in found if info.note]
    _report(notes, "recordings with sound in another channel than the one that is used")
    cuts = [_cut(line, info, sample_rate, mix=channel == MIX) for line, info in found]
    if not cuts:
        raise UserError(f"no recording can be read; the first: {problems[0]}")
    return CutSet.from_cuts(cuts), problems


def _check(line: TsvLine, channel: str) -> Tuple[Optional[_AudioInfo], str]:
    """Decode a recording; return its properties, or why it cannot be used."""
    try:
        samples, rate = patiently(partial(read_audio, line.audio), lambda: [str(line.audio)])
        chosen = pick_channel(samples, channel)
        number = 0 if channel == MIX else channel_number(samples, channel)
    except UserError as e:
        return None, f"{line.where}: {e}"
    except ValueError as e:
        return None, f"{line.where}: {line.audio}: {e}"
    if not can_be_cut(line.audio):
        return None, f"{line.where}: {line.audio}: convert it to wav or flac (only ffmpeg can read it)"
    info = _AudioInfo(
        num_samples=samples.shape[1],
        sample_rate=rate,
        channels=len(samples),
        channel=number,
        note=silence_note(samples, chosen),
    )
    return info, ""


def _cut(line: TsvLine, info: _AudioInfo, sample_rate: int, mix: bool) -> MonoCut:
    name = f"{'_'.join(line.audio.stem.split())}-{line.number}"
    cut = make_cut(
        name,
        line.audio.resolve(),
        info.num_samples,
        info.sample_rate,
        line.text,
        channels=info.channels,
        channel=info.channel,
        mix=mix and info.channels > 1,
    )
    return cut if cut.sampling_rate == sample_rate else cut.resample(sample_rate)
