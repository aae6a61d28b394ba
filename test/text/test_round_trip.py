"""Any text that is accepted comes back from every file that is written of it."""

import html.parser
import json
import random
import unicodedata

import pytest

from asr_core.data.manifest import iterate_cuts, make_cut, write_cuts
from asr_core.data.manifest_lines import texts_of, write_transcripts
from asr_core.data.tsv import read_tsv
from asr_core.lm.archive import LmArchive, build_archive
from asr_core.lm.lang_folder import make_bpe_lang
from asr_core.lm.lexicon import read_lexicon, spelled_lines
from asr_core.lm.symbols import format_symbols, read_symbols, text_lines, words_table
from asr_core.text.html_report import render
from asr_core.text.scoring import Utterance, format_errs, format_recogs, score_utterances
from asr_core.text.tokenizer import Tokenizer, single_spaced
from asr_core.text.train_tokenizer import train_tokenizer
from asr_core.text.transcripts import read_records, read_transcripts
from asr_core.utils.errors import UserError

ALPHABET = [
    *"ab\u00e4\u00df09#<>&\"'\\[](){},.:;%$\u00bd\u4f60\u6c34",
    "#0x",
    "#1",
    "#12",
    "<0x41>",
    "<unk",
    "nk>",
    "e\u0301",
    "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "ref=",
    "hyp=",
]
SPACES = [" ", "  ", "\u00a0", "\u3000", "\u2028", "\u2029", "\u0085", "\u000b", "\u001c", "\ufeff", " \t "]


def sentences(seed, number=40, spaces=SPACES):
    """Random texts with all kinds of white space between and around words."""
    rng = random.Random(seed)
    out = []
    for _ in range(number):
        words = ["".join(rng.choices(ALPHABET, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 6))]
        words += ["<unk>"] * (rng.random() < 0.2)
        rng.shuffle(words)
        text = "".join(word + rng.choice(spaces) for word in words)
        out.append(rng.choice(spaces) + text + rng.choice(["", *spaces]))
    return out


def plain(text):
    return single_spaced(unicodedata.normalize("NFC", text))


def trained(folder, texts, kind, keep_text):
    (folder / "text").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    train_tokenizer(folder / "text", folder, 120, kind, fit=True, keep_text=keep_text)
    return Tokenizer.load(folder / "bpe.model"), Tokenizer.load(folder / "tokens.txt")


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
@pytest.mark.parametrize("keep_text", [True, False])
def test_tokens_spell_the_text(kind, keep_text, tmp_path):
    texts = sentences(kind + str(keep_text))
    model, table = trained(tmp_path, texts, kind, keep_text)
    assert model.pieces == table.pieces and not any(ch.isspace() for p in model.pieces for ch in p)
    for text, ids in zip(texts, model.encode(texts)):
        assert model.unknown_characters(text) == "" and model.reserved_symbols(text) == []
        assert model.decode(ids) == table.decode(ids)
        again = model.decode(model.encode([model.decode(ids)])[0])
        assert again == model.decode(ids)
        if keep_text:
            assert model.decode(ids) == single_spaced(text)
        assert ids.count(model.unk_id) == single_spaced(text).split(" ").count("<unk>")


def test_tables_and_manifests(tmp_path):
    texts = sentences(1, spaces=[space for space in SPACES if "\t" not in space])
    table = tmp_path / "a.tsv"
    table.write_text("".join(f"{i}.wav\t{text}\n" for i, text in enumerate(texts)), encoding="utf-8")
    read = [line.text for line in read_tsv(table)]
    assert read == [plain(text) for text in texts]
    for name, kept in (("raw", texts), ("read", read)):
        cuts = [make_cut(f"c{i}", f"{i}.wav", 16000, 16000, text) for i, text in enumerate(kept)]
        path = tmp_path / f"{name}.jsonl.gz"
        write_cuts(cuts, path)
        assert [cut.supervisions[0].text for cut in iterate_cuts(path)] == kept
        assert list(texts_of(path)) == [single_spaced(text) for text in kept]
        assert write_transcripts([path], tmp_path / "transcript") == len(kept)
        lines = [" ".join(words) for _, words in text_lines(tmp_path / "transcript")]
        assert lines == [single_spaced(text) for text in kept]
    given = read_transcripts(tmp_path / "raw.jsonl.gz").texts
    assert given == {f"c{i}": text for i, text in enumerate(texts)}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_lang_folders_and_language_models(kind, tmp_path):
    texts = [text.replace("#0", "#7") for text in sentences(2)]  # the last test says why
    model, _ = trained(tmp_path, texts, kind, True)
    words = {word for text in texts for word in single_spaced(text).split(" ")}
    (tmp_path / "words.txt").write_text(format_symbols(words_table(words | {"<UNK>"})), encoding="utf-8")
    assert words < set(read_symbols(tmp_path / "words.txt"))
    make_bpe_lang(tmp_path)
    assert Tokenizer.load(tmp_path / "tokens.txt").pieces == model.pieces
    tokens = read_symbols(tmp_path / "tokens.txt")
    assert len(tokens) > len(model.pieces) and tokens["#0"] == len(model.pieces)
    ids = {word: [tokens[piece] for piece in spelt] for word, spelt in read_lexicon(tmp_path / "lexicon.txt")}
    assert ids == {**{word: model.encode([word])[0] for word in words}, "<UNK>": ids["<UNK>"]}
    path = tmp_path / "transcript"
    path.write_text("".join(f"{single_spaced(text)}\n" for text in texts), encoding="utf-8")
    for text, line in zip(texts, spelled_lines(tmp_path / "lexicon.txt", path)):
        assert [tokens[piece] for piece in line.split()] == model.encode([text])[0]
    build_archive(path, model).save(tmp_path / "lm_data.pt")
    archive = LmArchive.load(tmp_path / "lm_data.pt")
    assert archive.pieces == model.pieces
    assert archive.sentence_lengths.tolist() == [len(ids) for ids in model.encode(texts)]


class _Words(html.parser.HTMLParser):
    """Collects the text of a page."""

    def __init__(self):
        super().__init__()
        self.text = ""

    def handle_data(self, data):
        self.text += data


def test_results(tmp_path):
    rng, texts = random.Random(3), sentences(3)
    refs = {f"id-{i}": single_spaced(text) for i, text in enumerate(texts)}
    hyps = dict(zip(refs, rng.sample(sorted(refs.values()), len(refs))))
    utterances = [Utterance(key, refs[key].split(" "), hyps[key].split(" "), "") for key in refs]
    recogs = tmp_path / "recogs.txt"
    recogs.write_text(format_recogs(utterances), encoding="utf-8")
    found = read_transcripts(recogs)
    assert (found.refs, found.texts) == (refs, hyps)
    records = [{"id": key, "text": hyps[key], "ref": refs[key]} for key in refs]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (tmp_path / "nbest.jsonl").write_text(lines, encoding="utf-8")
    assert read_records(tmp_path / "nbest.jsonl") == records
    assert read_transcripts(tmp_path / "nbest.jsonl").texts == hyps
    (tmp_path / "table").write_text("".join(f"{k}\t{t}\n" for k, t in refs.items()), encoding="utf-8")
    assert read_transcripts(tmp_path / "table").texts == refs
    score = score_utterances(utterances)
    page = _Words()
    page.feed(render("#<>&", "<a>", utterances, score))
    for shown in (format_errs(score), page.text):
        assert all(word in shown for text in refs.values() for word in text.split(" "))


def test_symbols_that_no_text_may_have(tmp_path):
    model, _ = trained(
        tmp_path, ["one two <unk>", "<unk> a<unk>b one", "<blk> two <sos/eos>"] * 3, "bpe", False
    )
    assert model.encode(["<unk> one"])[0][0] == model.unk_id
    assert model.decode(model.encode(["<unk> one a<unk>b"])[0]) == "<unk> one a<unk>b"
    assert model.unknown_characters("<unk> one a<unk>b") == ""
    for symbol in ("<blk>", "<sos/eos>", "\u2581"):
        for text in (f"{symbol} one", f"one{symbol}", f"one {symbol}two one"):
            (ids,) = model.encode([text])
            assert model.blank_id not in ids and 1 not in ids and model.unk_id in ids
            assert model.reserved_symbols(text) == [symbol]
            assert symbol not in model.decode(ids)
    text, ids = "one <unk", model.encode(["one <unk"])[0]
    assert model.decode(ids) == text  # by its characters
    assert model.unknown_characters("<unk> one Q <blk>") == "Q"


def test_tokens_like_disambiguation_symbols(tmp_path):
    rng = random.Random(0)
    rooms = ["".join(rng.choices("abcdefgh", k=3)) for _ in range(30)]
    texts = [
        " ".join(f"{room}#{n}" for room, n in zip(rng.sample(rooms, 6), (1, 1, 1, 2, 1, 10)))
        for _ in range(80)
    ]
    for kind in ("bpe", "unigram"):
        model, table = trained(tmp_path, texts, kind, False)
        assert "#1" in model.pieces and table.pieces == model.pieces
        for text, ids in zip(texts, model.encode(texts)):
            assert table.decode(ids) == text


@pytest.mark.parametrize(
    "last, size, tokens",
    [
        (["a", "#0", "#1"], 0, 4),  # as icefall's lang folders end
        (["#1", "a"], 0, 5),
        (["a", "#1"], 0, 5),  # no #0: tokens
        (["a", "#1", "#0", "#2"], 0, 5),  # numbers that are tokens are left out
        (["a", "#0"], 5, 5),  # a model of so many tokens
        (["a", "#0"], 0, 4),
    ],
)
def test_the_end_of_a_table(last, size, tokens, tmp_path):
    rows = ["<blk>", "<sos/eos>", "<unk>", *last]
    (tmp_path / "tokens.txt").write_text(format_symbols(rows))
    assert Tokenizer.load(tmp_path / "tokens.txt", size).pieces == rows[:tokens]


def test_a_token_0_is_refused_in_graphs_alone(tmp_path):
    model, table = trained(tmp_path, ["room#0 hall#0 a#0 b#0 c#0 #0 #0 #0"] * 5, "bpe", False)
    assert "#0" in "".join(model.pieces) and table.pieces == model.pieces
    (tmp_path / "words.txt").write_text(format_symbols(words_table({"room#0", "<UNK>"})))
    if "#0" in model.pieces:
        with pytest.raises(UserError, match="#0 is a token"):
            make_bpe_lang(tmp_path)
