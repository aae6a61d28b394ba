"""Searches with phrases and language models through the programs, offline and streaming."""

import json

import pytest
import torch
from decode_programs import CHUNKS, MAIN, hypotheses, run
from tiny import PIECES

from asr_core.bin import ctc_decode, decode, streaming_decode
from asr_core.lm.neural import TransformerLm
from asr_core.lm.options import TransformerOptions

END = f"{MAIN}_chunk-16_left-context-32"


@pytest.fixture(scope="module")
def words(extras):
    """A word bigram, and a transformer."""
    unigrams = "".join(
        f"-1.0 {word} -0.1\n" for word in ["<s>", "</s>", "<unk>", *(f"W{i}" for i in range(7))]
    )
    (extras / "words.arpa").write_text(
        f"\\data\\\nngram 1=10\nngram 2=1\n\n\\1-grams:\n{unigrams}\n\\2-grams:\n-0.1 W5 W2\n\n\\end\\\n"
    )
    torch.manual_seed(1)
    sizes = {
        "nhead": 2,
        "encoder_dim": 8,
        "embedding_dim": 8,
        "dim_feedforward": 16,
        "num_layers": 1,
        "tie_weights": True,
    }
    (extras / "transformer").mkdir()
    model = TransformerLm(len(PIECES), TransformerOptions(8, 8, 16, 2, 1))
    torch.save({"model": model.state_dict(), **sizes}, extras / "transformer" / "epoch-7.pt")
    return extras / "words.arpa"


@pytest.mark.parametrize(
    "method, plain_name, name, streaming_name",
    [
        (
            "greedy_search",
            "_context-2_max-sym-per-frame-1",
            "_context-2_max-sym-per-frame-1_context-score-8.0",
            "greedy-search_context-score-8.0",
        ),
        (
            "ctc-prefix-beam-search",
            "__ctc-prefix-beam-search__beam-size-4",
            "__ctc-prefix-beam-search__beam-size-4-context-score-8.0",
            "num-active-paths-4_context-score-8.0",
        ),
    ],
)
def test_phrases(world, causal_heads, extras, method, plain_name, name, streaming_name):
    chosen = ["--decoding-method", method, "--test-sets", "test-a", *CHUNKS]
    phrases = ["--context-file", str(extras / "phrases.txt"), "--context-score", "8"]
    run(decode, world, "prefix", *chosen)
    run(decode, world, "prefix", *chosen, *phrases)
    run(streaming_decode, world, "prefix", *chosen, *phrases)
    plain, biased = (
        hypotheses(causal_heads / method / f"recogs-test-a-{END}{n}.txt") for n in (plain_name, name)
    )
    streamed = hypotheses(causal_heads / "streaming" / method / f"recogs-test-a_{streaming_name}_{END}.txt")

    def count(found):
        return sum(" ".join(words).count(p) for words in found.values() for p in ("W5 W2", "W1 W1 W7"))

    assert count(biased) > count(plain) and streamed == biased


def test_ctc_shallow_fusion(world, causal_heads, extras, words, capsys):
    misspelt, method = "ctc-prefix-beam-search-shallow-fussion", "ctc-prefix-beam-search-shallow-fusion"
    chosen = ["--decoding-method", misspelt, "--test-sets", "test-a", *CHUNKS, "--beam-size", "10"]
    run(ctc_decode, world, "prefix", *chosen)
    assert "no language model is given" in capsys.readouterr().err
    run(ctc_decode, world, "prefix", *chosen, "--context-file", str(extras / "phrases.txt"))
    assert "--context-file has no effect with --context-score 0" in capsys.readouterr().err
    lodr = ["--lodr-ngram", str(extras / "2gram.arpa"), "--lodr-lm-scale", "-2"]
    run(ctc_decode, world, "prefix", *chosen, *lodr, "--lm-exp-dir", str(extras / "lm"))
    assert "the neural language model has no effect" in capsys.readouterr().err
    folder, name = causal_heads / method, f"recogs-test-a-{END}__{method}__beam-size-10"
    plain, found = hypotheses(folder / f"{name}.txt"), []
    lm = ["--lm-vocab-size", str(len(PIECES)), "--nnlm-scale", "0.8"]
    for part, more in [
        ("_rnn-lm-scale-0.8", [*lm, "--lm-exp-dir", str(extras / "lm")]),
        (
            "_transformer-lm-scale-0.8",
            [*lm, "--lm-exp-dir", str(extras / "transformer"), "--nnlm-type", "transformer"],
        ),
        ("_LODR-2gram-scale--2.0", lodr),
        ("_word-ngram-scale-2.0_word-score-1.5", ["--word-ngram", str(words), "--word-ngram-scale", "2"]),
    ]:
        run(ctc_decode, world, "prefix", *chosen, *more)
        found.append(hypotheses(folder / f"{name}{part}.txt"))
    assert all(f != plain for f in found) and any(f != found[0] for f in found[1:])


@pytest.mark.parametrize("method", ["beam_search", "modified_beam_search", "alsd", "ctc-prefix-beam-search"])
def test_nbest_lists(world, causal_heads, method):
    run(decode, world, "prefix", "--decoding-method", method, "--test-sets", "test-b", "--write-nbest", "3")
    folder = causal_heads / ("alignment_length_sync_search" if method == "alsd" else method)
    (name,) = folder.glob("nbest-test-b*.jsonl")
    lists = [json.loads(line)["nbest"] for line in name.read_text().splitlines()]
    best = hypotheses(next(folder.glob("recogs-test-b*.txt")))
    assert sorted(found[0]["text"].split() for found in lists) == sorted(best.values())
    assert all(
        1 <= len(found) <= 3 and len({str(h["tokens"]) for h in found}) == len(found) for found in lists
    )


def test_internal_language_model_and_single_alignments(world, causal_heads):
    for method, more, part in [
        ("modified_beam_search", ["--ilme-scale", "0.6"], "_ilme-scale-0.6"),
        (
            "alignment_length_sync_search",
            ["--alsd-merge", "0", "--ilme-scale", "0.6"],
            "_no-merging_ilme-scale-0.6",
        ),
    ]:
        chosen = ["--decoding-method", method, "--test-sets", "test-b"]
        run(decode, world, "prefix", *chosen)
        run(decode, world, "prefix", *chosen, *more)
        name = f"recogs-test-b-{MAIN}_chunk--1_left-context--1__{method}__beam-size-4"
        plain, other = (hypotheses(causal_heads / method / f"{name}{end}.txt") for end in ("", part))
        assert plain != other


def test_a_missing_ngram_gets_one_line(world, causal_heads, capsys):
    method = ["--decoding-method", "ctc-prefix-beam-search-shallow-fusion", "--test-sets", "test-a"]
    for more, message in [
        (["--lodr-ngram", "/nowhere"], "--lodr-ngram: cannot read /nowhere"),
        (["--word-ngram", "/nowhere"], "/nowhere"),
    ]:
        with pytest.raises(SystemExit):
            run(decode, world, "prefix", *method, *more)
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("error: ") and message in last


def test_ngrams_over_words_and_tokens_are_told_apart(world, causal_heads, extras, words, capsys):
    method = ["--decoding-method", "alsd", "--test-sets", "test-a"]
    for more, message in [
        (
            ["--lodr-ngram", str(words), "--lodr-lm-scale", "-0.1"],
            "words.arpa knows none of the model's tokens",
        ),
        (["--word-ngram", str(extras / "2gram.arpa")], "2gram.arpa is an n-gram over tokens"),
    ]:
        with pytest.raises(SystemExit):
            run(decode, world, "prefix", *method, *more)
        assert message in capsys.readouterr().err.splitlines()[-1]
