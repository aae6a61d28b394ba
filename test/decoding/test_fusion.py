"""Modified beam search with language models and phrases, its rescoring, and Graves' search, against lists of all hypotheses."""

import itertools
from collections import defaultdict

import pytest
import torch
from toy_search import all_paths, initial_length, log_probs, log_sum, random_batch, small_model

from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.scorers.rescoring import LM_SCALES, LODR_LM_SCALES, LODR_SCALES, rescore
from asr_core.decoding.scorers.token_scorers import ContextScorer, NeuralScorer, NgramScorer
from asr_core.decoding.transducer.graves_beam import beam_search
from asr_core.decoding.transducer.modified_beam import (
    StreamingBeamSearch,
    modified_beam_nbest,
    modified_beam_search,
)
from asr_core.lm.neural import RnnLm, TransformerLm
from asr_core.lm.ngram import NgramLm

CPU = torch.device("cpu")
ARPA = r"""
\data\
ngram 1=5
ngram 2=5

\1-grams:
-0.9 </s>
-99 <s> -0.2
-0.4 a -0.3
-0.8 b -0.1
-2.0 <unk>

\2-grams:
-0.2 <s> b
-0.6 a a
-0.3 a b
-0.9 b </s>
-0.5 b b

\end\
"""
SYMBOLS = {"<blk>": 0, "a": 1, "b": 2}


@pytest.fixture(scope="module")
def ngram(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "2gram.arpa"
    path.write_text(ARPA)
    return NgramLm.from_arpa(path, SYMBOLS)


def neural(kind, vocab_size=3):
    torch.manual_seed(5)
    lm = RnnLm(vocab_size, 8, 8, 2) if kind == "rnn" else TransformerLm(vocab_size, 8, 8, 16, 2, 2)
    for p in lm.parameters():
        p.data.mul_(3)
    return lm.eval()


def lm_score(lm, tokens):
    """Log-probability of tokens, the end not counted."""
    if not tokens:
        return 0.0
    whole = float(lm.sentence_log_probs([list(tokens)]))
    x = torch.tensor([[1, *tokens]])
    return whole - float(lm.score_tokens(x, torch.tensor([x.size(1)]))[0][0, 1])


def totals(model, x):
    """Log-probability of each token sequence."""
    by_tokens = defaultdict(list)
    for labels, score in all_paths(model, x, 3):
        by_tokens[tuple(k for k in labels if k)].append(score)
    return {tokens: log_sum(scores) for tokens, scores in by_tokens.items()}


def scorer_sets(ngram):
    phrases = ContextGraph([[2, 1], [1, 1, 2]], 0.7)
    context = lambda tokens: 0.7 * completed(tokens)  # noqa: E731
    out = {"phrases": ([ContextScorer(phrases, CPU)], context)}
    for kind in ("rnn", "transformer"):
        lm = neural(kind)
        out[kind] = ([NeuralScorer(lm, 0.6)], lambda tokens, lm=lm: 0.6 * lm_score(lm, tokens))
    lodr = lambda tokens: out["rnn"][1](tokens) - 0.3 * ngram.sentence_log_prob(tokens, eos=False)  # noqa: E731
    out["lodr"] = ([*out["rnn"][0], NgramScorer(ngram, -0.3, CPU)], lodr)
    out["all"] = ([*out["lodr"][0], *out["phrases"][0]], lambda tokens: lodr(tokens) + context(tokens))
    return out


def completed(tokens):
    """Tokens of completed phrases (2, 1) and (1, 1, 2), the first completed first."""
    count, seen = 0, ()
    for token in tokens:
        seen += (token,)
        done = [p for p in ((1, 1, 2), (2, 1)) if seen[-len(p) :] == p]
        if done:
            count, seen = count + len(done[0]), ()
    return count


@pytest.mark.parametrize("name", ["phrases", "rnn", "transformer", "lodr", "all"])
@pytest.mark.parametrize("seed, context_size", [(0, 2), (1, 2), (2, None)])
@torch.no_grad()
def test_scorers_against_all_sequences(ngram, name, seed, context_size):
    scorers, by_hand = scorer_sets(ngram)[name]
    model = small_model(vocab_size=3, seed=seed, scale=1.0, context_size=context_size)
    x, _ = random_batch(n=4, t=4, seed=seed)
    lens = torch.tensor([4, 0, 3, 4])
    plain = modified_beam_search(model, x, lens, 60)
    found = modified_beam_search(model, x, lens, 60, scorers=scorers)
    for i, hyp in enumerate(found):
        total = {
            tokens: score + by_hand(tokens) for tokens, score in totals(model, x[i, : int(lens[i])]).items()
        }
        best = max(total, key=lambda k: total[k] / (len(k) + initial_length(model)))
        assert tuple(hyp.tokens) == best
        assert hyp.log_prob == pytest.approx(total[best], abs=1e-3)
    assert [h.log_prob for h in found] != pytest.approx([h.log_prob for h in plain])


@pytest.mark.parametrize("name", ["phrases", "rnn", "transformer", "lodr", "all"])
@torch.no_grad()
def test_scorers_in_batches_and_streams(ngram, name):
    scorers, _ = scorer_sets(ngram)[name]
    model = small_model(vocab_size=3, scale=1.5)
    x, lens = random_batch(n=7, t=18)
    together = modified_beam_search(model, x, lens, 4, scorers=scorers)
    streaming = StreamingBeamSearch(model, 4, scorers=scorers)
    streams = [streaming.new_stream() for _ in lens]
    for start in range(0, 18, 5):
        streaming.advance(
            streams, x[:, start : start + 5], (lens - start).clamp(0, 5).clamp(max=x.size(1) - start)
        )
    for i, hyp in enumerate(together):
        (alone,) = modified_beam_search(model, x[i : i + 1], lens[i : i + 1], 4, scorers=scorers)
        for other in (alone, streams[i].hypothesis()):
            assert other[:2] == hyp[:2] and other.log_prob == pytest.approx(hyp.log_prob, abs=1e-3)
    assert sum(len(h.tokens) for h in together) > 15


@torch.no_grad()
def test_nbest_lists_every_sequence():
    model = small_model(vocab_size=3)
    x, _ = random_batch(n=3, t=4)
    for i, hyps in enumerate(modified_beam_nbest(model, x, torch.tensor([4, 0, 2]), 60)):
        want = totals(model, x[i, : [4, 0, 2][i]])
        assert {tuple(h.tokens): h.log_prob for h in hyps} == pytest.approx(want, abs=1e-4)
        per_token = [h.log_prob / (len(h.tokens) + initial_length(model)) for h in hyps]
        assert per_token == sorted(per_token, reverse=True)


@pytest.mark.parametrize("with_ngram, kind", [(False, "rnn"), (True, "rnn"), (False, "transformer")])
@torch.no_grad()
def test_rescoring(ngram, with_ngram, kind):
    model, lm = small_model(vocab_size=3), neural(kind)
    for p in lm.parameters() if kind == "transformer" else ():
        p.mul_(2.0)  # else it changes no choice
    x, lens = random_batch(n=5, t=12)
    nbest = modified_beam_nbest(model, x, lens, 6)
    found = rescore(nbest, lm, ngram if with_ngram else None)
    assert len(found) == (len(LODR_LM_SCALES) * len(LODR_SCALES) if with_ngram else len(LM_SCALES))
    names = [("nnlm_scale_0.04_lodr_scale_0.95", 0.04, 0.95), ("nnlm_scale_0.58_lodr_scale_0.05", 0.58, 0.05)]
    for name, scale, lodr in (
        names if with_ngram else [("nnlm_scale_0.10", 0.1, 0), ("nnlm_scale_0.49", 0.49, 0)]
    ):
        for hyps, chosen in zip(nbest, found[name]):
            lm_scores = lm.sentence_log_probs([h.tokens for h in hyps]).tolist()
            if with_ngram:
                scores = [
                    h.log_prob / scale + s - lodr * ngram.sentence_log_prob(h.tokens)
                    for h, s in zip(hyps, lm_scores)
                ]
            else:
                scores = [h.log_prob + scale * s for h, s in zip(hyps, lm_scores)]
            assert chosen == hyps[scores.index(max(scores))]
    assert any([h.tokens for h in a] != [h.tokens for h in b] for a in found.values() for b in found.values())


@torch.no_grad()
def exact_score(model, x, tokens):
    """Log-probability of a token sequence with any number of tokens per frame."""
    reach = [0.0] + [float("-inf")] * len(tokens)
    for frame in x:
        row = [log_probs(model, frame, list(tokens[:u])).tolist() for u in range(len(tokens) + 1)]
        for u, token in enumerate(tokens):
            reach[u + 1] = log_sum([reach[u + 1], reach[u] + row[u][token]])
        reach = [r + row[u][0] for u, r in enumerate(reach)]
    return reach[-1]


@pytest.mark.parametrize("context_size", [2, None])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_graves_search_against_all_sequences(seed, context_size):
    """The score is that of all alignments, and no sequence of up to four tokens has a better one per token."""
    model = small_model(vocab_size=3, seed=seed, scale=1.5, context_size=context_size)
    model.joiner.output_linear.bias[0] += 3.0
    x, _ = random_batch(n=3, t=3, seed=seed)
    lens = torch.tensor([3, 0, 2])
    for i, hyp in enumerate(beam_search(model, x, lens, beam_size=60)):
        frames = x[i, : int(lens[i])]
        exact = exact_score(model, frames, hyp.tokens)
        assert exact - 0.05 <= hyp.log_prob <= exact + 1e-4
        listed = [tokens for n in range(5) for tokens in itertools.product((1, 2), repeat=n)]
        best = max(
            exact_score(model, frames, tokens) / (len(tokens) + initial_length(model)) for tokens in listed
        )
        assert hyp.log_prob / (len(hyp.tokens) + initial_length(model)) >= best - 0.01
        assert hyp.timestamps == sorted(hyp.timestamps) and len(hyp.timestamps) == len(hyp.tokens)


@pytest.mark.parametrize("context_size", [2, None])
@torch.no_grad()
def test_graves_search_one_at_a_time_and_penalty(context_size):
    model = small_model(vocab_size=4, scale=1.5, context_size=context_size)
    model.joiner.output_linear.bias[0] += 3.0
    x, lens = random_batch(n=4, t=8)
    together = beam_search(model, x, lens)
    alone = [beam_search(model, x[i : i + 1], lens[i : i + 1])[0] for i in range(4)]
    assert [h[:2] for h in together] == [h[:2] for h in alone]
    more = beam_search(model, x, lens, blank_penalty=2.0)
    assert sum(len(h.tokens) for h in more) > sum(len(h.tokens) for h in together)


@torch.no_grad()
def test_graves_search_ends_where_a_model_does_not(caplog):
    model = small_model(vocab_size=4, context_size=None)
    model.joiner.output_linear.bias[0] -= 50.0
    x, lens = random_batch(n=2, t=5)
    found = beam_search(model, x, lens, beam_size=2)
    assert len(found[0].tokens) >= 5 and found[1].tokens == [] and "without end at 5 frames" in caplog.text
