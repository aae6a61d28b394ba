"""Which tokens a word consists of."""

import random

import pytest

from asr_core.text.tokenizer import Tokenizer, WordSpan

MARK = "\u2581"
PIECES = ["<blk>", "<sos/eos>", "<unk>", f"{MARK}A", "B", MARK, f"C{MARK}D"]
BYTES = [*PIECES, *(f"<0x{byte:02X}>" for byte in range(256))]


@pytest.mark.parametrize(
    "pieces, want",
    [
        ([f"{MARK}A", "B", f"{MARK}A"], [("AB", 0, 1), ("A", 2, 2)]),
        (
            [MARK, "B", "B", MARK, "B"],
            [("BB", 0, 2), ("B", 3, 4)],
        ),  # a mark by itself belongs to the word that it opens
        (["B", "<blk>", "B", MARK], [("BB", 0, 2)]),
        ([f"{MARK}A", "<unk>", "B"], [("A", 0, 0), ("<unk>", 1, 1), ("B", 2, 2)]),
        (["B", f"C{MARK}D"], [("BC", 0, 1), ("D", 1, 1)]),
        ([f"{MARK}A", "<0xE4>", "<0xBD>", "<0xA0>", "B"], [("A\u4f60B", 0, 4)]),
        ([], []),
    ],
)
def test_spans(pieces, want):
    spans = Tokenizer(BYTES).word_spans([BYTES.index(p) for p in pieces])
    assert spans == [WordSpan(*w) for w in want]


def test_spans_of_anything():
    tokenizer, rng = Tokenizer(PIECES), random.Random(0)
    for _ in range(3000):
        ids = [rng.randrange(len(PIECES)) for _ in range(rng.randrange(9))]
        spans = tokenizer.word_spans(ids)
        assert " ".join(span.word for span in spans) == tokenizer.decode(ids)
        assert all(0 <= span.first <= span.last < len(ids) for span in spans)
        assert all(a.first <= b.first and a.last <= b.last for a, b in zip(spans, spans[1:]))


def test_characters_as_tokens():
    pieces = ["<blk>", "<sos/eos>", "<unk>", MARK, *"abc", "\u6c34"]
    tokenizer = Tokenizer(pieces)
    ids = [pieces.index(ch) for ch in f"ab{MARK}c\u6c34"]
    assert tokenizer.word_spans(ids) == [WordSpan("ab", 0, 1), WordSpan("c\u6c34", 2, 4)]
