"""A word n-gram in searches over tokens, and CTC prefix search with scorers, against lists of all
sequences.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from answers import one_best
from forced_align import ctc_forced_align
from toy_ctc import MODEL, add, collapse, frames
from toy_scorers import CPU, scorer_sets
from toy_search import random_batch, small_model

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.ctc.prefix_beam import StreamingCtcPrefixSearch, ctc_prefix_beam_search
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.scorers.token_scorers import ContextScorer, NgramScorer
from asr_core.decoding.scorers.word_ngram import WordNgramScorer, WordWeights
from asr_core.decoding.transducer.internal_lm import InternalLmScorer
from asr_core.decoding.transducer.modified_beam import modified_beam_search
from asr_core.lm.ngram import NgramLm
from asr_core.utils.errors import UserError

PIECES = ["<blk>", "\u2581a", "b", "\u2581"]  # words: a, ab, abb, b, ...
WORDS = r"""
\data\
ngram 1=5
ngram 2=4

\1-grams:
-0.7 </s>
-99 <s> -0.2
-0.5 a -0.3
-0.9 ab -0.1
-1.5 <unk>

\2-grams:
-0.3 <s> ab
-0.4 a ab
-0.6 ab a
-0.2 ab </s>

\end\
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "words.arpa"
    path.write_text(WORDS)
    return NgramLm.from_arpa(path)


def word_score(words, tokens, weights):
    """The word n-gram's score of a token sequence, from its text."""
    text = "".join(PIECES[t] for t in tokens).replace("\u2581", " ").split()
    ids = [words.symbols.get(w, -1) for w in text]
    unknown = sum(i < 0 for i in ids) * weights.unknown_offset * math.log(10)
    return weights.scale * (words.sentence_log_prob(ids) + unknown) + weights.word_score * len(ids)


def all_totals(log_probs, by_hand):
    """Score of every token sequence of CTC log-probabilities (T, V) with what ``by_hand`` adds."""
    total = {}
    for path in itertools.product(range(log_probs.size(1)), repeat=log_probs.size(0)):
        tokens = collapse(path)
        total[tokens] = add(
            total.get(tokens, -math.inf), sum(float(log_probs[t, v]) for t, v in enumerate(path))
        )
    return {tokens: score + by_hand(tokens) for tokens, score in total.items()}


@pytest.mark.parametrize("weights", [WordWeights(), WordWeights(1.0, -0.5, -0.3)])
def test_word_ngram_in_ctc_search(words, weights):
    scorer = WordNgramScorer(words, PIECES, weights, CPU)
    x, lens = frames(2, 5, 4, seed=3), torch.tensor([5, 3])
    for i, found in enumerate(
        ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=400), scorers=[scorer])
    ):
        want = all_totals(x[i, : int(lens[i])], lambda tokens: word_score(words, tokens, weights))
        assert {tuple(h.tokens): h.log_prob for h in found} == pytest.approx(want, abs=1e-3)
        assert tuple(found[0].tokens) == max(want, key=want.get)


def test_word_ngram_in_transducer_search(words):
    weights, model = WordWeights(0.7, 0.2, -1.0), small_model(vocab_size=4, scale=1.0)
    x, lens = random_batch(n=2, t=4)[0], torch.tensor([4, 3])
    plain = modified_beam_search(model, x, lens, BeamOptions(beam_size=300))
    fused = modified_beam_search(
        model, x, lens, BeamOptions(beam_size=300), scorers=[WordNgramScorer(words, PIECES, weights, CPU)]
    )
    for before, after in zip(plain, fused):
        want = {tuple(h.tokens): h.log_prob + word_score(words, h.tokens, weights) for h in before}
        assert {tuple(h.tokens): h.log_prob for h in after} == pytest.approx(want, abs=1e-3)


def test_spelling(words):
    pieces = ["<blk>", "<sos/eos>", "<unk>", "\u2581", "<0xC3>", "<0xA4>", "\u2581a", "b"]
    lm = NgramLm.from_ngrams(_unigrams({"\u00e4": -0.1, "ab": -0.5, "<unk>": -2.0}))
    scorer = WordNgramScorer(lm, pieces, WordWeights(1.0, 0.0, 0.0), CPU)

    def score(tokens):
        states, total = scorer.start(1, 1), 0.0
        for token in tokens:
            added, states = scorer.extend(states, torch.tensor([[token]]), torch.tensor([[token != 0]]))
            total += float(added)
        return total + float(scorer.finish(states))

    assert score([3, 4, 5]) == pytest.approx(-0.1, abs=1e-5)
    assert score([3, 4, 0, 5, 6, 7]) == pytest.approx(-0.6, abs=1e-5)
    assert score([2]) == score([6]) == pytest.approx(-2.0, abs=1e-5)
    assert score([]) == score([3, 3, 1]) == 0.0
    with pytest.raises(UserError, match="no token begins"):
        WordNgramScorer(lm, ["<blk>", "a"], WordWeights(), CPU)


def _unigrams(log_probs):
    from asr_core.lm.arpa import Arpa

    ids = np.arange(len(log_probs), dtype=np.int32).reshape(-1, 1)
    zeros = np.zeros(len(log_probs), dtype=np.float32)
    return Arpa(
        {w: i for i, w in enumerate(log_probs)},
        [ids],
        [np.array(list(log_probs.values()), dtype=np.float32)],
        [zeros],
    )


@pytest.mark.parametrize("name", ["phrases", "rnn", "transformer", "lodr", "all"])
@torch.no_grad()
def test_ctc_scorers_against_all_sequences(ngram, name):
    scorers, by_hand = scorer_sets(ngram)[name]
    x, lens = frames(2, 5, 3, seed=2), torch.tensor([5, 4])
    for i, found in enumerate(
        ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=100), scorers=scorers)
    ):
        want = all_totals(x[i, : int(lens[i])], by_hand)
        assert {tuple(h.tokens): h.log_prob for h in found} == pytest.approx(want, abs=1e-3)
        assert tuple(found[0].tokens) == max(want, key=want.get)


def scorers_for(name, words, ngram):
    if name == "none":
        return []
    phrases = ContextScorer(ContextGraph([[2, 1], [1, 1, 2]], 0.7), CPU)
    if name == "words":
        return [WordNgramScorer(words, PIECES, WordWeights(), CPU), phrases]
    return scorer_sets(ngram)[name][0]


@pytest.mark.parametrize("name, beam", [("none", 1), ("none", 6), ("words", 6), ("all", 4)])
@torch.no_grad()
def test_ctc_batches_and_streams(words, ngram, name, beam):
    scorers = scorers_for(name, words, ngram)
    x, lens = frames(6, 30, 4 if name != "all" else 3, seed=beam), torch.tensor([30, 13, 0, 1, 29, 7])
    together = ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=beam), scorers=scorers)
    streaming = StreamingCtcPrefixSearch(MODEL, BeamOptions(beam_size=beam), scorers=scorers)
    streams = [streaming.new_stream() for _ in lens]
    for start in range(0, 30, 4):
        streaming.advance(
            streams, x[:, start : start + 4], (lens - start).clamp(0, 4).clamp(max=x.size(1) - start)
        )
    for i, found in enumerate(together):
        (alone,) = ctc_prefix_beam_search(
            MODEL, x[i : i + 1, : int(lens[i])], lens[i : i + 1], BeamOptions(beam_size=beam), scorers=scorers
        )
        for other in (alone, streams[i].nbest()):
            assert [h[:2] for h in other] == [h[:2] for h in found]
            assert [h.log_prob for h in other] == pytest.approx([h.log_prob for h in found], abs=1e-3)
        assert streams[i].hypothesis()[:2] == found[0][:2]
    assert sum(len(found[0].tokens) for found in together) > 20


def test_timestamps_are_those_of_the_best_alignment():
    x, lens = frames(4, 12, 4, seed=9), torch.tensor([12, 12, 9, 5])
    found = ctc_prefix_beam_search(MODEL, x, lens, BeamOptions(beam_size=5000))
    for i, hypotheses in enumerate(found):
        some = hypotheses[:40]
        times, _ = ctc_forced_align(x[[i] * len(some)], lens[[i] * len(some)], [h.tokens for h in some])
        assert [h.timestamps for h in some] == times


@torch.no_grad()
def test_internal_language_model():
    for context_size in (2, None):
        model = small_model(vocab_size=4, scale=1.0, context_size=context_size)
        x, lens = random_batch(n=2, t=4)[0], torch.tensor([4, 3])
        plain = modified_beam_search(model, x, lens, BeamOptions(beam_size=300))
        less = modified_beam_search(
            model, x, lens, BeamOptions(beam_size=300), scorers=[InternalLmScorer(model, 0.4)]
        )
        for before, after in zip(plain, less):
            want = {tuple(h.tokens): h.log_prob - 0.4 * internal(model, h.tokens) for h in before}
            assert {tuple(h.tokens): h.log_prob for h in after} == pytest.approx(want, abs=1e-3)


def internal(model, tokens):
    """Log-probability of tokens without the encoder, blank left out."""
    total = 0.0
    for i, token in enumerate(tokens):
        if hasattr(model.decoder, "context_size"):
            size = model.decoder.context_size
            out = model.decoder(
                torch.tensor([([-1] * (size - 1) + [0] + tokens[:i])[-size:]]), need_pad=False
            )[:, 0]
        else:
            out = model.decoder(torch.tensor([[0, *tokens[:i]]]))[:, -1]
        out = model.joiner.decoder_proj(out)
        logits = model.joiner(torch.zeros_like(out), out, project_input=False)[0, 1:]
        total += float(logits.log_softmax(0)[token - 1])
    return total


def test_token_ngram_lowers_what_it_dislikes(ngram):
    x, lens = frames(8, 20, 3, peak=0.5, seed=1), torch.full((8,), 20)
    by_scale = [
        one_best(
            ctc_prefix_beam_search(
                MODEL, x, lens, BeamOptions(beam_size=20), scorers=[NgramScorer(ngram, s, CPU)]
            )
        )
        for s in (-1.0, 0.0, 1.0)
    ]
    likes = [sum(ngram.sentence_log_prob(h.tokens, eos=False) for h in found) for found in by_scale]
    assert likes[0] < likes[1] < likes[2]
