"""Comparison of a tokenizer with the tokens that a model's file records."""

import pytest

from asr_core.text.pieces import check_tokenizer, difference, recorded_pieces
from asr_core.text.tokenizer import Tokenizer, format_tokens
from asr_core.utils.errors import UserError

PIECES = ["<blk>", "<sos/eos>", "<unk>", "\u2581one", "e", "#1"]
OTHER = [*PIECES[:4], "n", "#1"]


def test_the_first_difference_is_named():
    tokenizer = Tokenizer(PIECES, path="bpe.model")
    check_tokenizer(tokenizer, 6, PIECES)
    check_tokenizer(tokenizer, 6, None)
    with pytest.raises(UserError, match=r"^bpe.model is not .* its token 4 is 'e', the model's 'n'; give"):
        check_tokenizer(tokenizer, 6, OTHER)
    with pytest.raises(UserError, match=r"has 6 tokens, but the model 7 \(its token 4 is 'e', "):
        check_tokenizer(tokenizer, 7, [*OTHER, "x"])
    with pytest.raises(UserError, match="has 6 tokens, but the model 5: it is another model's"):
        check_tokenizer(tokenizer, 5)
    assert difference(PIECES, PIECES[:5]) == "it has 6 tokens, the model's are 5"


def test_the_record_or_else_the_file_of_a_run(tmp_path):
    assert recorded_pieces({"pieces": PIECES}) == PIECES
    (tmp_path / "tokens.txt").write_text(format_tokens(OTHER))
    assert recorded_pieces({}, tmp_path) is None  # any folder may have a tokens.txt
    (tmp_path / "params.json").write_text("{}")
    assert recorded_pieces({}, tmp_path, 6) == OTHER
    assert recorded_pieces({}, tmp_path, 7) is None
    assert recorded_pieces({"pieces": PIECES}, tmp_path) == PIECES
    with pytest.raises(UserError, match="damaged"):
        recorded_pieces({"pieces": [1, 2]})
