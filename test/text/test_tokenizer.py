"""Tokenizers: training, files, round trips, damage."""

import pytest

from asr_core.text.tokenizer import Tokenizer, read_tokens
from asr_core.text.train_tokenizer import train_tokenizer
from asr_core.utils.errors import UserError

DIGITS = "zero one two three four five six seven eight nine"


@pytest.fixture(scope="module")
def lang(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lang")
    (folder / "text").write_text(DIGITS + "\n")
    train_tokenizer(folder / "text", folder, 34, "bpe")
    return folder


def test_round_trip_and_special_tokens(lang):
    tokenizer = Tokenizer.load(lang / "bpe.model")
    assert tokenizer.vocab_size == 34 and tokenizer.pieces[:3] == ["<blk>", "<sos/eos>", "<unk>"]
    assert (tokenizer.blank_id, tokenizer.unk_id) == (0, 2)
    texts = [DIGITS, "nine nine", ""]
    ids = tokenizer.encode(texts)
    assert [tokenizer.decode(i) for i in ids] == texts
    assert len(ids[0]) == 30  # three tokens a word
    assert tokenizer.decode([0, *ids[1], 1, 0]) == "nine nine"
    assert (lang / "bpe_34.model").read_bytes() == (lang / "bpe.model").read_bytes()


def test_tokens_txt_decodes_alike(lang):
    model, table = Tokenizer.load(lang), Tokenizer.load(lang / "tokens.txt")
    assert table.pieces == model.pieces
    for ids in ([*model.encode([DIGITS])[0]], [5, 2, 7, 19, 2], [3, 4]):
        assert table.decode(ids) == model.decode(ids)
    with pytest.raises(UserError, match="bpe.model"):
        table.encode(["one"])


def test_unknown_characters(lang):
    tokenizer = Tokenizer.load(lang)
    assert tokenizer.unknown_characters("one two") == ""
    assert tokenizer.unknown_characters("one Qué é") == "Qé"
    assert tokenizer.decode(tokenizer.encode(["one Q"])[0]) == "one <unk>"


def test_training_twice_gives_the_same(lang, tmp_path):
    train_tokenizer(lang / "text", tmp_path, 34, "bpe")
    assert (tmp_path / "tokens.txt").read_bytes() == (lang / "tokens.txt").read_bytes()


@pytest.mark.parametrize("kind, wanted", [("unigram", 500), ("bpe", 5000), ("bpe", 4), ("unigram", 4)])
def test_sizes_that_the_text_does_not_allow(lang, tmp_path, kind, wanted, caplog):
    with pytest.raises(UserError, match=r"--vocab-size \d+"):
        train_tokenizer(lang / "text", tmp_path, wanted, kind)
    size = train_tokenizer(lang / "text", tmp_path, wanted, kind, fit=True)
    assert f"does not allow {wanted} {kind} tokens: using {size}" in caplog.text
    assert Tokenizer.load(tmp_path).vocab_size == size
    with pytest.raises(UserError):  # nothing nearer works
        train_tokenizer(lang / "text", tmp_path / "x", size + (1 if wanted > size else -1), kind)


def test_text_kept_as_it_is(tmp_path):
    (tmp_path / "text").write_text("½ cup of Größe\n" * 3)
    train_tokenizer(tmp_path / "text", tmp_path, 16, "char", keep_text=True)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode(["½ cup"])[0]) == "½ cup"


def test_byte_pieces_and_hash_tokens(tmp_path):
    every = [f"<0x{byte:02X}>" for byte in range(256)]
    rows = ["<blk>", "<sos/eos>", "<unk>", "\u2581a", *every, "#0"]
    (tmp_path / "tokens.txt").write_text("".join(f"{t}\t{i}\n" for i, t in enumerate(rows)))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.vocab_size == 260 and tokenizer.decode([3, 4 + 0xC3, 4 + 0xA4, 3]) == "aä a"


@pytest.mark.parametrize("content", ["<blk> 0\na 2\n", "<blk> 0\na x\n", "<blk> 0\n<blk> 1\n", "a 0\n"])
def test_bad_tokens_files(tmp_path, content):
    (tmp_path / "tokens.txt").write_text(content)
    with pytest.raises(UserError, match="tokens.txt"):
        Tokenizer.load(tmp_path / "tokens.txt")


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match="no such tokenizer"):
        Tokenizer.load(tmp_path / "bpe.model")
    with pytest.raises(UserError, match="no bpe.model or tokens.txt"):
        Tokenizer.load(tmp_path)
    (tmp_path / "bpe.model").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged"):
        Tokenizer.load(tmp_path / "bpe.model")
    with pytest.raises(UserError, match="cannot read"):
        read_tokens(tmp_path / "none.txt")
    (tmp_path / "text").write_text("\n \n")
    with pytest.raises(UserError, match="no text"):
        train_tokenizer(tmp_path / "text", tmp_path, 10)
