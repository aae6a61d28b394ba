"""Tables of scores, normalisation by names, transcripts from files, and the programs that score and report them."""

import gzip
import json
from html.parser import HTMLParser

import pytest

from asr_core.bin import report, score
from asr_core.text.html_report import Player, render
from asr_core.text.normalize import normalize_text
from asr_core.text.scoring import (
    Utterance,
    difference_interval,
    format_recogs,
    probability_of_improvement,
    score_utterances,
)
from asr_core.text.tables import by_speaker, format_scores, most_frequent, sentence_accuracy
from asr_core.text.transcripts import read_records, read_transcripts, utterances_of
from asr_core.utils.errors import UserError

UTTERANCES = [
    Utterance("u1", "the cat sat".split(), "the cat sat".split(), "ann"),
    Utterance("u2", "a cat".split(), "a hat hat".split(), "bob"),
    Utterance("u3", ["cat"], [], "bob"),
    Utterance("u4", [], ["um"], ""),
]


def test_speakers_sentences_and_confusions():
    scored = score_utterances(UTTERANCES)
    rows = [
        (r.speaker, r.utterances, r.sentences_right, r.counts.errors, r.counts.ref_len)
        for r in by_speaker(UTTERANCES, scored)
    ]
    assert rows == [("(unknown)", 1, 0, 1, 0), ("bob", 2, 0, 3, 3), ("ann", 1, 1, 0, 3)]
    assert sentence_accuracy(scored) == 25 and sentence_accuracy(score_utterances([])) == 0
    frequent = most_frequent(scored, 1)
    assert frequent == {
        "substitutions": [(1, "cat -> hat")],
        "deletions": [(1, "cat")],
        "insertions": [(1, "hat")],
    }
    text = format_scores(UTTERANCES, scored)
    assert (
        "word error rate: 66.67 %" in text
        and "character error rate: 56.25 %" in text
        and "sentences right: 25.00 %: 1 of 4" in text
    )
    assert format_scores([], score_utterances([])).startswith("word error rate: 0.00 %")


@pytest.mark.parametrize(
    "text, mode, want",
    [
        ("Bonjour, \u00e7a va tr\u00e8s bien?", "upper+no-punct", "BONJOUR \u00c7A VA TR\u00c8S BIEN"),
        (
            "Don\u2019t say \u201cmother-in-law\u201d \u2013 3.14, 12:30!",
            "no-punct",
            "Don't say mother-in-law 3.14 12:30",
        ),
        ("'tis the dogs' -- [noise] <unk> x", "no-tags+no-punct", "tis the dogs x"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940\u0964 \u4f60\u597d\uff0c\u4e16\u754c",
            "no-punct",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u4f60\u597d \u4e16\u754c",
        ),
        ("\uff21\uff22 \ufb01n", "nfkc+lower", "ab fin"),
        ("Cr\u00e8me Br\u00fbl\u00e9e", "no-marks+lower", "creme brulee"),
        ("e\u0301  A", "none", "\u00e9 A"),
        ("\u0130 \u00df", "lower", "i\u0307 \u00df"),
    ],
)
def test_normalization_by_names(text, mode, want):
    assert normalize_text(text, mode) == want
    assert normalize_text(want, mode) == want or "+" in mode  # once is enough


def test_unknown_normalization():
    with pytest.raises(UserError, match="unknown normalization 'no-punkt'; choose from none, lower, upper"):
        normalize_text("x", "lower+no-punkt")


def test_paired_comparison():
    old = [(1, 5)] * 60 + [(0, 5)] * 40
    better = [(0, 5)] * 55 + [(1, 5)] * 5 + [(0, 5)] * 40
    assert probability_of_improvement(old, better) > 0.999 > 0.001 > probability_of_improvement(better, old)
    assert probability_of_improvement(old, old) == 0.5 and difference_interval(old, old) == (0.0, 0.0)
    low, high = difference_interval(old, better)
    assert low < -11 < high < 0  # 55 errors fewer in 500 words
    with pytest.raises(ValueError, match="cannot be compared"):
        probability_of_improvement(old, better[1:])


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
        ("a x\na y\n", ":2: a is there twice"),
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


def test_score_program(tmp_path, capsys):
    (tmp_path / "ref").write_text("".join(f"u{i} one two three\n" for i in range(40)))
    (tmp_path / "a").write_text("".join(f"u{i}\tone TWO\n" for i in range(40)))
    (tmp_path / "b").write_text("".join(f"u{i}\tone two three\n" for i in range(40)))
    files = [str(tmp_path / name) for name in ("ref", "a", "b", "errs", "scores")]
    score.main(
        ["--ref", files[0], "--hyp", *files[1:3], "--cer", "1", "--errs", files[3], "--scores", files[4]]
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[-4:] == ["CER", "%", "right", "%"]
    assert lines[3].split() == [
        "a",
        "40",
        "120",
        "66.67",
        "66.67",
        "..",
        "66.67",
        "40",
        "40",
        "0",
        "72.73",
        "0.00",
    ]
    assert lines[4].split()[3] == "0.00" and lines[5].endswith(
        "-66.67 (95 % interval -66.67 .. -66.67), better with probability 1.000"
    )
    assert (tmp_path / "errs").read_text().startswith("%WER = 66.67") and "40   two -> TWO" in (
        tmp_path / "scores"
    ).read_text()
    score.main(["--ref", files[0], "--hyp", files[1], "--normalize", "lower"])
    assert capsys.readouterr().out.splitlines()[3].split()[3] == "33.33"
    for arguments, message in (
        (["--hyp", files[1]], "give some with --ref"),
        (["--ref", files[0], "--hyp", files[1], "--normalize", "x"], "unknown normalization"),
        (["--ref", files[0], "--hyp", files[1], files[1]], "given twice"),
    ):
        with pytest.raises(SystemExit):
            score.main(arguments)
        assert message in capsys.readouterr().err


class Page(HTMLParser):
    """Checks that tags are balanced, and gathers rows of the table of utterances and what is loaded."""

    VOID = {"meta", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.sources, self.in_utterances = [], [], [], False
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.in_utterances |= attrs.get("id") == "utterances"
        self.sources += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr" and self.in_utterances:
            self.rows.append([])
        if tag in ("td", "th") and self.in_utterances:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.in_utterances &= tag != "table"

    def handle_data(self, data):
        if self.in_utterances and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


NASTY = [
    Utterance(
        "<i>&\"1'",
        ["</td><script>alert(1)</script>", "b&amp;"],
        ["</td><script>alert(1)</script>", '"x"'],
        "<s>",
    ),
    *UTTERANCES,
]


def test_report_is_whole_safe_and_complete():
    scored = score_utterances(NASTY)
    words = {
        "u1": [
            {"w": w, "start": i, "end": i + 0.5, "confidence": 0.25}
            for i, w in enumerate(["the", "cat", "sat"])
        ]
    }
    text = render("a <b> & c", "test", NASTY, scored, {"u1": Player('a "b".wav#t=0,1', 2.5)}, words)
    page = Page(text)
    assert page.sources == ['a "b".wav#t=0,1'] and "http" not in text and text.count("<script>") == 1
    header, *rows = page.rows
    assert header == ["utterance", "speaker", "words", "errors", "rate %", "alignment", "audio"]
    assert [row[0] for row in rows] == sorted(u.cut_id for u in NASTY)
    by_id = {row[0]: row[1:] for row in rows}
    assert by_id["<i>&\"1'"] == ["<s>", "2", "1", "50.0", '</td><script>alert(1)</script> b&amp; "x"', ""]
    assert by_id["u2"][4] in ("a cat hat hat", "a hat cat hat")  # both alignments have two errors
    assert by_id["u4"] == ["(unknown)", "0", "1", "", "um", ""]
    assert 'data-t="1.000" title="1.00 to 1.50 s, confidence 0.25"' in text and 'data-start="2.500"' in text


def test_report_program(tmp_path, capsys):
    (tmp_path / "recogs-x.txt").write_text(format_recogs(UTTERANCES))
    report.main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'report-x.html'}\n"
    assert len(Page((tmp_path / "report-x.html").read_text()).rows) == 1 + len(UTTERANCES)
    (tmp_path / "plain").write_text("u1 x\n")
    for arguments, message in (
        ([str(tmp_path / "plain")], "give some with --ref"),
        ([str(tmp_path / "recogs-x.txt"), "--embed-limit", "0"], "--embed-limit"),
        ([str(tmp_path / "none")], "cannot read"),
    ):
        with pytest.raises(SystemExit):
            report.main(arguments)
        assert message in capsys.readouterr().err
