"""Transcripts from files of all kinds, damaged ones, and missing hypotheses."""

import gzip
import json

import pytest

from asr_core.text.scoring import (
    Utterance,
    format_recogs,
)
from asr_core.text.transcripts import read_records, read_transcripts, utterances_of
from asr_core.utils.errors import UserError


def files_of_all_kinds(folder):
    texts = {"u1": "a b", "u2": "", "u3": "c"}
    (folder / "plain").write_text("".join(f"{k} {t}\n" for k, t in texts.items()))
    (folder / "tsv").write_text("".join(f"{k}\t{t}\n" for k, t in texts.items()))
    (folder / "recogs").write_text(format_recogs(Utterance(k, ["r"], t.split()) for k, t in texts.items()))
    records = [{"id": k, "ref": "r", "text": t, "speaker": "s"} for k, t in texts.items()]
    (folder / "times.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    nbest = [
        {"id": k, "ref": "r", "nbest": [{"text": t}, {"text": "no"}] if t else []} for k, t in texts.items()
    ]
    (folder / "nbest.jsonl").write_text("".join(json.dumps(r) + "\n" for r in nbest))
    cuts = [
        {"id": k, "supervisions": [{"text": t, "speaker": "s"}], "type": "MonoCut"} for k, t in texts.items()
    ]
    (folder / "cuts.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(c) + "\n" for c in cuts).encode())
    )
    return texts


def test_transcripts_of_all_kinds(tmp_path):
    texts = files_of_all_kinds(tmp_path)
    for path in tmp_path.iterdir():
        found = read_transcripts(path)
        assert found.texts == texts, path
        assert found.refs == (
            dict.fromkeys(texts, "r") if path.name in ("recogs", "times.jsonl", "nbest.jsonl") else {}
        )
        assert found.speakers == (
            dict.fromkeys(texts, "s") if path.name in ("times.jsonl", "cuts.jsonl.gz") else {}
        )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ("a x\na y\n", ":2: a occurs twice"),
        ("{]\n", ":1:"),
        ("a:\tref=[1\n", ":1: damaged"),
        ("a:\tref=['x']\nb y\n", "neither"),
    ],
)
def test_damaged_transcripts(tmp_path, text, message):
    (tmp_path / "x").write_text(text)
    with pytest.raises(UserError, match=message):
        read_transcripts(tmp_path / "x")
    with pytest.raises(UserError, match="cannot read"):
        read_transcripts(tmp_path / "missing")


def test_records_hold_any_text(tmp_path):
    texts = ["a\u2028b", "c\x85d", "e\x1cf", '"<g>\n"']
    path = tmp_path / "times.jsonl"
    path.write_text(
        "".join(json.dumps({"id": str(i), "text": t}, ensure_ascii=False) + "\n" for i, t in enumerate(texts))
    )
    assert [r["text"] for r in read_records(path)] == texts == list(read_transcripts(path).texts.values())


def test_missing_hypotheses():
    with pytest.raises(UserError, match="1 of 2 references have no hypothesis, e.g. b"):
        utterances_of({"a": "x", "b": "y"}, {"a": "x"}, {})
    with pytest.raises(UserError, match="1 hypotheses have no reference, e.g. c"):
        utterances_of({"a": "x"}, {"a": "x", "c": ""}, {})
    found = utterances_of(
        {"a": "X", "b": "yz"}, {"a": "x"}, {"a": "s"}, "lower", by_character=True, missing=True
    )
    assert found == [Utterance("a", ["x"], ["x"], "s"), Utterance("b", ["y", "z"], [], "")]
