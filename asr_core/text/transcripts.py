"""Reading transcripts of test sets from files of many kinds."""

import ast
import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from asr_core.text.normalize import normalize_text
from asr_core.text.scoring import Utterance, characters
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

_RECOGS_REF, _RECOGS_HYP = ":\tref=", ":\thyp="


class Transcripts(NamedTuple):
    """The content of a file, by utterance id.

    Attributes:
      texts: the hypotheses, or the only text of each utterance.
      refs: the references, if the file has both.
      speakers: the speakers, if the file has them.
    """

    texts: Dict[str, str]
    refs: Dict[str, str]
    speakers: Dict[str, str]


def read_transcripts(path: PathLike) -> Transcripts:
    """Read transcripts from a file of any known kind.

    That is ``recogs-*.txt``, ``timestamps-*.jsonl`` or ``nbest-*.jsonl`` of a decoding, a cut
    manifest, TSV (``id<tab>text`` lines), or plain text (``id word word ...``). JSON lines have at
    least ``id`` and ``text``. Any of them may be compressed by gzip.

    Raises:
      UserError: it is missing or damaged, or an id is repeated.
    """
    path = Path(path)
    lines = [(number, line) for number, line in enumerate(_lines(path), 1) if line.strip()]
    out = Transcripts({}, {}, {})
    if not lines:
        raise UserError(f"{path} is empty")
    first = lines[0][1]
    read = _read_text
    if first.startswith("{"):
        read = _read_json
    elif _RECOGS_REF in first or _RECOGS_HYP in first:
        read = _read_recogs
    for number, line in lines:
        try:
            read(line, out)
        except (ValueError, SyntaxError, KeyError, TypeError, AttributeError) as e:
            reason = e if isinstance(e, ValueError) else "damaged"
            raise UserError(f"{path}:{number}: {reason}: {line[:80]!r}") from e
    return out


def _lines(path: Path) -> List[str]:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig").split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as e:
        raise UserError(f"cannot read {path}: {getattr(e, 'strerror', None) or e}") from e


def _put(texts: Dict[str, str], key: str, text: str) -> None:
    if key in texts:
        raise ValueError(f"{key} occurs twice")
    texts[key] = text


def _read_recogs(line: str, out: Transcripts) -> None:
    sign = _RECOGS_REF if _RECOGS_REF in line else _RECOGS_HYP
    key, found, words = line.partition(sign)
    if not found:
        raise ValueError("neither ref= nor hyp=")
    _put(out.refs if sign == _RECOGS_REF else out.texts, key, " ".join(ast.literal_eval(words.strip())))


def _read_json(line: str, out: Transcripts) -> None:
    record: Dict[str, Any] = json.loads(line)
    key = record["id"]
    supervisions = record.get("supervisions")
    if supervisions is not None:
        _put(out.texts, key, " ".join(s.get("text") or "" for s in supervisions))
        speaker: Optional[str] = supervisions[0].get("speaker") if supervisions else None
    else:
        nbest = record.get("nbest")
        best = record if nbest is None else nbest[0] if nbest else {"text": ""}
        _put(out.texts, key, best["text"])
        speaker = record.get("speaker")
        if "ref" in record:
            out.refs[key] = record["ref"]
    if speaker:
        out.speakers[key] = speaker


def _read_text(line: str, out: Transcripts) -> None:
    parts = line.split("\t", 1) if "\t" in line else line.split(maxsplit=1)
    _put(out.texts, parts[0].strip(), parts[1].strip() if len(parts) > 1 else "")


def utterances_of(
    refs: Dict[str, str],
    hyps: Dict[str, str],
    speakers: Dict[str, str],
    mode: str = "none",
    by_character: bool = False,
    missing: bool = False,
) -> List[Utterance]:
    """Pair references and hypotheses.

    Args:
      refs, hyps: texts by utterance id.
      speakers: known speakers by utterance id.
      mode: normalization of both, see :func:`~asr_core.text.normalize.normalize_text`.
      by_character: split into characters rather than words.
      missing: take an utterance without hypothesis as one of no words.

    Raises:
      UserError: the utterances differ.
    """
    lacking, strange = sorted(refs.keys() - hyps.keys()), sorted(hyps.keys() - refs.keys())
    if strange:
        raise UserError(
            f"{len(strange)} hypotheses have no reference, e.g. {strange[0]}: are they of the same test set?"
        )
    if lacking and not missing:
        raise UserError(
            f"{len(lacking)} of {len(refs)} references have no hypothesis, e.g. {lacking[0]}; "
            "--missing-as-empty 1 counts them"
        )

    def units(text: str) -> List[str]:
        words = normalize_text(text, mode).split()
        return characters(words) if by_character else words

    return [
        Utterance(key, units(ref), units(hyps.get(key, "")), speakers.get(key, ""))
        for key, ref in sorted(refs.items())
    ]


def pair_of(files: Sequence[Transcripts]) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return references and speakers, each from the first file that has them."""
    refs = next((f.refs for f in files if f.refs), {})
    return refs, {key: speaker for f in reversed(files) for key, speaker in f.speakers.items()}


def read_records(path: PathLike) -> List[Dict[str, Any]]:
    """Read a file of JSON lines that decoding wrote.

    Raises:
      UserError: it is missing or damaged.
    """
    records: List[Dict[str, Any]] = []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # texts may hold other separators of lines
        for line in filter(str.strip, lines):
            record = json.loads(line)
            if not isinstance(record, dict) or "id" not in record:
                raise ValueError("no object with an id")
            records.append(record)
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
    except ValueError as e:
        raise UserError(f"{path}:{len(records) + 1}: damaged ({e}); decode again") from e
    return records
