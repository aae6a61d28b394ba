"""Files of phrases: one that cannot be spelled is left out and named."""

import pytest

from asr_core.decoding.scorers.phrases import read_phrases
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError


class Letters(Tokenizer):
    """A tokenizer of the letters a to c."""

    def __init__(self):
        super().__init__(["<blk>", "<unk>", "a", "b", "c"])

    def encode(self, texts):
        return [[{"a": 2, "b": 3, "c": 4}.get(ch, 1) for ch in text.replace(" ", "")] for text in texts]

    def unknown_characters(self, text):
        return "".join(ch for ch in text if ch not in "abc ")


def test_phrases_that_cannot_be_spelled_are_left_out_and_named(tmp_path, caplog):
    path = tmp_path / "phrases.txt"
    path.write_text("\ufeffab  c\n\nbXa\n" + "Q\n" * 6 + "cc")
    assert read_phrases(path, Letters()) == [[2, 3, 4], [4, 4]]
    first, second, *others = caplog.messages
    assert first == "7 of 9 phrases are left out:"
    assert second == f"  {path}:3: the tokens cannot spell 'X' of 'bXa'"
    assert len(others) == 5 and others[-1] == "  ... and 2 more"


@pytest.mark.parametrize(
    "text, words",
    [("AB\nX\n", ":1: the tokens cannot spell 'AB' of 'AB'; is its case right?"), (" \n", "has no phrases")],
)
def test_no_phrase_that_can_be_used_is_an_error(tmp_path, text, words):
    path = tmp_path / "phrases.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_phrases(path, Letters())
    with pytest.raises(UserError, match="cannot read --context-file"):
        read_phrases(tmp_path / "none", Letters())
