"""Language models, phrases and graphs of random weights for any decoding method."""

import numpy as np
import torch
from toy_graph import fsa_of
from toy_scorers import made_up_ngram

from asr_core.decoding.resources import Resource, Resources
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.lm.neural import RnnLm
from asr_core.lm.options import RnnOptions


def made_up_resources(wanted, vocab_size, device="cpu", seed=0, lm=RnnOptions(32, 32, 2), words=50):
    """The resources ``wanted``, the same for a seed on any device; the neural language model has
    sizes ``lm``, the graph LG ``words`` words.
    """
    device, rng = torch.device(device), np.random.default_rng(seed)
    phrases = [rng.integers(1, vocab_size, rng.integers(2, 6)).tolist() for _ in range(words)]
    share = min(0.5, 20 / vocab_size)
    make = {
        Resource.NEURAL_LM: lambda: _neural(vocab_size, seed, lm).to(device),
        Resource.TOKEN_NGRAM: lambda: made_up_ngram(2, vocab_size, seed, share=share),
        Resource.LODR_NGRAM: lambda: made_up_ngram(2, vocab_size, seed + 1, share=share),
        Resource.CONTEXT_GRAPH: lambda: ContextGraph(phrases, 0.5, device),
        Resource.LG: lambda: made_up_lg(vocab_size, words, seed),
    }
    return Resources(**{resource.value: make[resource]() for resource in wanted})


def _neural(vocab_size, seed, sizes):
    torch.manual_seed(seed)
    lm = RnnLm(vocab_size, sizes).eval()
    with torch.no_grad():
        lm.output_linear.weight.mul_(4)
    return lm


def made_up_lg(vocab_size, words, seed=0):
    """A graph of ``words`` random words of one to five tokens, all of which may follow each other;
    the single tokens are words, too. Its states know the last word's first letter, a little grammar.
    """
    rng = np.random.default_rng(seed)
    spelled = [[token] for token in range(1, vocab_size)]
    spelled += [rng.integers(1, vocab_size, rng.integers(2, 6)).tolist() for _ in range(words)]
    arcs, inner, ends = [], {}, 2  # two histories, at whose states words begin
    for history in range(ends):
        for number, tokens in enumerate(spelled):
            here = history
            for token in tokens[:-1]:
                if (here, token) not in inner:
                    inner[here, token] = ends + len(inner)
                    arcs.append((here, inner[here, token], token, 0, -float(rng.random())))
                here = inner[here, token]
            score = -2.0 - 3 * float(rng.random())
            arcs.append((here, number % ends, tokens[-1], number + 1, score))
    names = {"<eps>": 0, **{f"w{number + 1}": number + 1 for number in range(len(spelled))}}
    return fsa_of(arcs, {0: 0.0, 1: -0.7}).with_words(names)
