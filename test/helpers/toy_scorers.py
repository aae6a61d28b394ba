"""Small language models and phrases for searches over three tokens, and their scores computed by
hand.
"""

import numpy as np
import torch
from toy_search import log_probs, log_sum

from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.scorers.token_scorers import ContextScorer, NeuralScorer, NgramScorer
from asr_core.lm.arpa import Arpa
from asr_core.lm.neural import RnnLm, TransformerLm
from asr_core.lm.ngram import NgramLm
from asr_core.lm.options import RnnOptions, TransformerOptions

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


def neural(kind, vocab_size=3):
    torch.manual_seed(5)
    lm = (
        RnnLm(vocab_size, RnnOptions(8, 8, 2, tie_weights=False))
        if kind == "rnn"
        else TransformerLm(vocab_size, TransformerOptions(8, 8, 16, 2, 2))
    )
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


def made_up_ngram(order=3, vocab_size=9, seed=0, unk=True, eos=None, share=0.4):
    """A random n-gram over tokens, some of which it does not know; ``</s>`` is one of them if
    ``eos`` is its id, and there is none if it is negative.
    """
    rng = np.random.default_rng(seed)
    symbols = {f"t{i}": i for i in range(1, vocab_size - 2) if i != eos}
    symbols["<s>"] = vocab_size
    if unk:
        symbols["<unk>"] = vocab_size - 1
    if eos is None or eos >= 0:
        symbols["</s>"] = vocab_size + 1 if eos is None else eos
    last = [i for name, i in symbols.items() if name != "<s>"]
    words = [[(i,) for i in symbols.values()]]
    for _ in range(order - 1):
        longer = [(*h, w) for h in words[-1] if h[-1] != symbols.get("</s>") for w in last]
        words.append([gram for gram in longer if rng.random() < share])
    return NgramLm.from_ngrams(
        Arpa(
            symbols,
            [np.array(grams, np.int32) for grams in words],
            [-rng.random(len(grams), np.float32) * 4 for grams in words],
            [-rng.random(len(grams), np.float32) for grams in words],
        )
    )


def word_arpa():
    """A word bigram of "a", "ab" and "b"."""
    symbols = {"</s>": 0, "<s>": 1, "a": 2, "ab": 3, "<unk>": 4, "b": 5}
    words = [[(i,) for i in range(6)], [(1, 3), (2, 3), (3, 2), (3, 0), (5, 5)]]
    scores = [[-1.6, -200.0, -1.2, -2.1, -3.4, -1.0], [-0.7, -0.9, -1.4, -0.5, -2.0]]
    backoffs = [[0.0, -0.5, -0.7, -0.2, 0.0, -0.1], [0.0] * 5]
    columns = [[np.array(x, np.float32) for x in part] for part in (scores, backoffs)]
    return Arpa(symbols, [np.array(grams, np.int32) for grams in words], *columns)
