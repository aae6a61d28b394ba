"""Runs, test sets, language models and graphs for the programs that decode."""

import pytest
import torch
from decode_programs import SCALES
from tiny import OPTIONS, PIECES, tiny_model, write_audio, write_run

from asr_core.bin import compile_hlg
from asr_core.decoding.methods import graph as graph_methods
from asr_core.lm.grammar_fst import write_openfst_text
from asr_core.lm.lexicon import add_disambig_symbols, disambig_symbols, write_graphs
from asr_core.lm.neural import RnnLm
from asr_core.lm.ngram import NgramLm
from asr_core.lm.options import RnnOptions
from asr_core.lm.symbols import format_symbols, read_symbols, words_table
from asr_core.models.options import ModelOptions
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.options import from_params, record_of

HEADS = dict(
    use_ctc=True,
    use_attention_decoder=True,
    attention_decoder_dim=16,
    attention_decoder_num_layers=1,
    attention_decoder_attention_dim=16,
    attention_decoder_num_heads=2,
    attention_decoder_feedforward_dim=32,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with two runs, and manifests of two test sets."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    root = tmp_path_factory.mktemp("world")
    for causal in (False, True):
        write_run(root / f"exp-{causal}", causal)
    (root / "fbank").mkdir()
    for part, count in (("a", 7), ("b", 2)):
        (root / part).mkdir()
        cuts = []
        for i, path in enumerate(write_audio(root / part, count)):
            recording = Recording.from_file(path)
            supervision = SupervisionSegment(
                f"s-{part}{i}", recording.id, 0.0, recording.duration, text="w5 w2 W3"
            )
            cuts.append(
                MonoCut(
                    f"{part}-{i}", 0.0, recording.duration, 0, supervisions=[supervision], recording=recording
                )
            )
        CutSet.from_cuts(cuts).to_file(root / "fbank" / f"noise_cuts_{part}.jsonl.gz")
    return root


def write_heads(exp_dir, causal, heads):
    """Write a run whose model has other heads than a transducer, too; return its folder."""
    model = tiny_model(causal, **heads)
    record = dict(
        vocab_size=len(PIECES),
        feature_dim=80,
        num_mel_bins=80,
        sample_rate=16000,
        blank_id=0,
        subsampling_factor=4,
    )
    given = record_of(from_params(ModelOptions, {**OPTIONS, **heads, "causal": causal}))
    exp_dir.mkdir()
    torch.save({"model": model.state_dict(), **given, **record}, exp_dir / "epoch-1.pt")
    (exp_dir / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES)))
    return exp_dir


@pytest.fixture(scope="module")
def heads(world):
    """A run whose model has the heads of CTC and of an attention decoder; its name."""
    write_heads(world / "exp-heads", False, HEADS)
    return "heads"


@pytest.fixture(scope="module")
def causal_heads(world):
    """The folder of a run whose causal model has both heads."""
    return write_heads(world / "exp-prefix", True, {"use_ctc": True})


@pytest.fixture(scope="module")
def lang(tmp_path_factory):
    """A lang folder whose words are one or two pieces, HLG, and a word 4-gram."""
    pytest.importorskip("kaldifst")
    root = tmp_path_factory.mktemp("lang")
    lexicon = [(f"W{i}", [PIECES[3 + i]]) for i in range(9)] + [("PAIR", [PIECES[4], PIECES[5]])]
    disambiguated, most = add_disambig_symbols(lexicon)
    (root / "tokens.txt").write_text(format_symbols([*PIECES, *disambig_symbols(most)]))
    (root / "words.txt").write_text(format_symbols(words_table(word for word, _ in lexicon)))
    tokens, words = read_symbols(root / "tokens.txt"), read_symbols(root / "words.txt")
    write_graphs(root, lexicon, disambiguated, tokens, words)
    unigrams = "".join(f"-1.0 {word} -0.1\n" for word in ["<s>", "</s>", *(word for word, _ in lexicon)])
    (root / "4-gram.arpa").write_text(
        f"\\data\\\nngram 1=12\nngram 2=1\nngram 3=1\nngram 4=1\n\n\\1-grams:\n{unigrams}\n\\2-grams:\n-0.3 W5 W2 -0.2\n\n"
        "\\3-grams:\n-0.2 W5 W2 W5 -0.1\n\n\\4-grams:\n-0.1 W5 W2 W5 W2\n\n\\end\\\n"
    )
    write_openfst_text(NgramLm.from_arpa(root / "4-gram.arpa", words), root / "G_4_gram.fst.txt", words)
    compile_hlg.main(argv=["--lang-dir", str(root), "--lm", "G_4_gram", "--lm-dir", str(root)])
    return root


@pytest.fixture(scope="module")
def extras(tmp_path_factory):
    """A neural LM, a lang folder with token bigram and graph, and phrases."""
    root = tmp_path_factory.mktemp("extras")
    torch.manual_seed(0)
    (root / "lm").mkdir()
    torch.save(
        {"model": RnnLm(len(PIECES), RnnOptions(8, 8, 1, tie_weights=False)).state_dict()},
        root / "lm" / "epoch-7.pt",
    )
    unigrams = "".join(f"-1.0 {piece} -0.1\n" for piece in [*PIECES[2:], "<s>", "</s>"])
    (root / "2gram.arpa").write_text(
        f"\\data\\\nngram 1={len(PIECES)}\nngram 2=1\n\n\\1-grams:\n{unigrams}\n\\2-grams:\n-0.1 {PIECES[4]} {PIECES[5]}\n\n\\end\\\n"
    )
    arcs = "".join(f"0 0 {i} {i - 2} 0.5\n" for i in range(3, len(PIECES)))
    (root / "LG.fst.txt").write_text(arcs + "0 0.1\n")
    (root / "words.txt").write_text(
        "<eps> 0\n" + "".join(f"WORD{i} {i}\n" for i in range(1, len(PIECES) - 2))
    )
    (root / "phrases.txt").write_text("W5 W2\n\nW1 W1 W7\n")
    return root


@pytest.fixture(autouse=True)
def encodes(monkeypatch):
    """A tokens.txt cannot split text; these pieces are words, so that the tests' can."""
    ids = {piece.lstrip("\u2581"): i for i, piece in enumerate(PIECES)}
    monkeypatch.setattr(
        Tokenizer,
        "encode",
        lambda self, texts: [[ids.get(w.upper(), 2) for w in text.split()] for text in texts],
    )


@pytest.fixture(autouse=True)
def few_scales(monkeypatch):
    """Scoring hundreds of results takes its time; a few of each will do."""
    sizes = [len(getattr(graph_methods, name)) for name in SCALES]
    assert sizes == [20, 24, 28]
    for name, scales in SCALES.items():
        assert set(scales) <= set(getattr(graph_methods, name))
        monkeypatch.setattr(graph_methods, name, scales)
