"""Lang folders: symbol tables in their order, disambiguation, and graphs that read what the lexicon
says.
"""

import math

import pytest

from asr_core.bin import convert_transcript_words_to_tokens, prepare_lang, prepare_lang_bpe
from asr_core.lm.lexicon import add_disambig_symbols, read_lexicon
from asr_core.lm.symbols import read_symbols
from asr_core.text.train_tokenizer import train_tokenizer
from asr_core.utils.errors import UserError

LEXICON = """!SIL SIL
<SPOKEN_NOISE> SPN
<UNK> SPN
READ R IY D
READ R EH D
RED R EH D
RE R EH
A AH
A EY
"""


def phone_lang(tmp_path):
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    prepare_lang.main(["--lang-dir", str(tmp_path)])
    return tmp_path


def test_tables_and_disambiguation(tmp_path):
    lang = phone_lang(tmp_path)
    assert (lang / "tokens.txt").read_text().split()[::2] == "<eps> AH D EH EY IY R SIL SPN #0 #1 #2".split()
    assert (lang / "words.txt").read_text().split()[
        ::2
    ] == "<eps> !SIL <SPOKEN_NOISE> <UNK> A RE READ RED #0 <s> </s>".split()
    assert list(read_symbols(lang / "words.txt").values()) == list(range(11))
    expected = LEXICON.replace("NOISE> SPN", "NOISE> SPN #1").replace("<UNK> SPN", "<UNK> SPN #2")
    expected = (
        expected.replace("READ R EH D", "READ R EH D #1")
        .replace("RED R EH D", "RED R EH D #2")
        .replace("RE R EH\n", "RE R EH #1\n")
    )
    assert (lang / "lexicon_disambig.txt").read_text() == expected


def read_arcs(path):
    arcs, finals = {}, {}
    for line in path.read_text().splitlines():
        fields = line.split("\t")
        if len(fields) == 5:
            s, d, i, o = map(int, fields[:4])
            arcs.setdefault(s, []).append((d, i, o, float(fields[4])))
        else:
            finals[int(fields[0])] = float(fields[1])
    return arcs, finals


def transductions(path, tokens):
    """All (word ids, cost) that the text gives for token ids."""
    arcs, finals = read_arcs(path)
    todo, found = [(0, 0, (), 0.0)], []
    while todo:
        state, at, words, cost = todo.pop()
        if at == len(tokens) and state in finals:
            found.append((words, cost + finals[state]))
        for dest, i, o, more in arcs.get(state, []):
            if i == 0 or (at < len(tokens) and tokens[at] == i):
                todo.append((dest, at + (i != 0), words + ((o,) if o else ()), cost + more))
    return sorted(found)


def test_phone_graph(tmp_path):
    lang = phone_lang(tmp_path)
    tokens, words = read_symbols(lang / "tokens.txt"), read_symbols(lang / "words.txt")

    def ids(text, table):
        return tuple(table[s] for s in text.split())

    both = [(ids("A READ", words), 3 * math.log(2)), (ids("A RED", words), 3 * math.log(2))]
    got = transductions(lang / "L.fst.txt", ids("AH R EH D", tokens))
    assert [w for w, _ in got] == [w for w, _ in both] and [c for _, c in got] == pytest.approx(
        [c for _, c in both]
    )
    # silence at the start, between words and at the end: each choice costs ln 2
    got = transductions(lang / "L.fst.txt", ids("SIL AH SIL R EH SIL", tokens))
    assert ids("A RE", words) in [w for w, _ in got]
    assert transductions(lang / "L.fst.txt", ids("AH R", tokens)) == []
    one = transductions(lang / "L_disambig.fst.txt", ids("AH #0 R EH D #2", tokens))
    assert [w for w, _ in one] == [ids("A #0 RED", words)]


def test_graph_objects_where_k2_is_installed(tmp_path):
    k2 = pytest.importorskip("k2")
    import torch

    lang = phone_lang(tmp_path)
    for name in ("L", "L_disambig"):
        fsa = k2.Fsa.from_dict(torch.load(lang / f"{name}.pt"))
        assert fsa.num_arcs == sum(map(len, read_arcs(lang / f"{name}.fst.txt")[0].values())) + 1 and hasattr(
            fsa, "aux_labels"
        )


def test_silence_must_be_a_phone(tmp_path, capsys):
    (tmp_path / "lexicon.txt").write_text("A AH\n")
    with pytest.raises(SystemExit):
        prepare_lang.main(["--lang-dir", str(tmp_path)])
    assert "no phone SIL" in capsys.readouterr().err
    prepare_lang.main(["--lang-dir", str(tmp_path), "--silence", ""])
    assert transductions(tmp_path / "L.fst.txt", (1, 1)) == [((1, 1), 0.0)]


def test_every_disambiguated_pronunciation_is_unique_and_no_beginning_of_another():
    lexicon = [(f"w{i}", list(p)) for i, p in enumerate(["ab", "ab", "abc", "a", "b", "ab", "ba"])]
    prons = [" ".join(tokens) for _, tokens in add_disambig_symbols(lexicon)[0]]
    assert len(set(prons)) == len(prons)
    assert not any(p != q and q.startswith(p + " ") for p in prons for q in prons)
    assert add_disambig_symbols([("x", ["a"]), ("y", ["b"])])[1] == 0


@pytest.fixture(scope="module")
def bpe_lang(tmp_path_factory):
    lang = tmp_path_factory.mktemp("lang")
    (lang / "text").write_text("THE CAT SAT ON THE MAT\nA CAT AND A HAT\nTHAT MAT AND THIS HAT\n" * 5)
    train_tokenizer(lang / "text", lang, 20)
    spoken = "A AND CAT HAT MAT ON SAT THAT THE THIS".split()
    words = ["<eps>", "!SIL", "<SPOKEN_NOISE>", "<UNK>", *spoken, "#0", "<s>", "</s>"]
    (lang / "words.txt").write_text("".join(f"{w} {i}\n" for i, w in enumerate(words)))
    prepare_lang_bpe.main(["--lang-dir", str(lang), "--oov", "<UNK>"])
    return lang


def test_bpe_lang(bpe_lang):
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(bpe_lang / "bpe.model"))
    tokens, words = read_symbols(bpe_lang / "tokens.txt"), read_symbols(bpe_lang / "words.txt")
    lexicon = dict(read_lexicon(bpe_lang / "lexicon.txt"))
    assert set(lexicon) == {"<UNK>", *"A AND CAT HAT MAT ON SAT THAT THE THIS".split()}
    assert all(processor.encode(w, out_type=str) == lexicon[w] for w in lexicon if w != "<UNK>")
    assert lexicon["<UNK>"] == ["\u2581", "<unk>"]
    assert [tokens[processor.id_to_piece(i)] for i in range(20)] == list(range(20))
    assert sorted(t for t in tokens if tokens[t] >= 20)[0] == "#0"
    sentence = "THE CAT SAT".split()
    spelt = [tokens[p] for w in sentence for p in lexicon[w]]
    assert (tuple(words[w] for w in sentence), 0.0) in transductions(bpe_lang / "L.fst.txt", spelt)
    from asr_core.text.tokenizer import Tokenizer

    assert Tokenizer.load(bpe_lang / "tokens.txt").vocab_size == 20


def test_transcripts_in_tokens(bpe_lang, tmp_path, capsys):
    (tmp_path / "t").write_text("THE DOG SAT\n\nON\n")
    lexicon = {w: " ".join(p) for w, p in read_lexicon(bpe_lang / "lexicon.txt")}
    expected = f"{lexicon['THE']} \u2581 <unk> {lexicon['SAT']}\n{lexicon['ON']}\n"
    options = [
        "--lexicon",
        str(bpe_lang / "lexicon.txt"),
        "--transcript",
        str(tmp_path / "t"),
        "--oov",
        "<UNK>",
    ]
    convert_transcript_words_to_tokens.main(options)
    assert capsys.readouterr().out == expected
    convert_transcript_words_to_tokens.main([*options, "--output", str(tmp_path / "out")])
    assert (tmp_path / "out").read_text() == expected
    with pytest.raises(SystemExit):
        convert_transcript_words_to_tokens.main([*options, "--oov", "X"])


@pytest.mark.parametrize(
    "text, words",
    [("A\n", ":1: expected a word"), ("A a\nB <eps>\n", ":2: .* are reserved"), ("", "has no words")],
)
def test_damaged_lexica_are_named(text, words, tmp_path):
    (tmp_path / "lexicon.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        read_lexicon(tmp_path / "lexicon.txt")
