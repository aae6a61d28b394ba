"""The HTML report: balanced, escaped, complete, and its program."""

from html.parser import HTMLParser

import pytest
from utterances import UTTERANCES

from asr_core.bin import report
from asr_core.text.html_report import Player, render
from asr_core.text.scoring import (
    Utterance,
    format_recogs,
    score_utterances,
)


class Page(HTMLParser):
    """Checks that tags are balanced, and gathers rows of the table of utterances and what is
    loaded.
    """

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
