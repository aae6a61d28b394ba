"""Small random decoding graphs for CTC, all of whose paths can be listed."""

import itertools
import math

import numpy as np
import torch

from asr_core.decoding.graph.fsa import Fsa, FsaArcs
from asr_core.lm.ngram import NgramLm


def fsa_of(arcs, final, start=0):
    """The graph of arcs (source, destination, input label, output label, score)."""
    columns = [np.array([arc[i] for arc in arcs], np.float32 if i == 4 else np.int64) for i in range(5)]
    return Fsa.from_arcs(FsaArcs(*columns), final, start)


WORDS = {"<eps>": 0, "A": 1, "B": 2, "C": 3}
ARPA = r"""
\data\
ngram 1=5
ngram 2=5

\1-grams:
-0.9 </s>
-99 <s> -0.2
-0.6 A -0.3
-0.8 B -0.1
-0.7 C

\2-grams:
-0.4 <s> B
-0.3 A A
-0.9 A B
-0.2 B </s>
-0.6 C A

\end\
"""


def word_graph(seed, states=3, vocab_size=3):
    """From frames (0: blank) to words (0: none), ambiguous, with ends that not all states have."""
    rng = np.random.default_rng(seed)
    arcs = []
    for source in range(states):
        for label in range(vocab_size):
            for _ in range(rng.integers(1, 3)):
                arcs.append(
                    (source, int(rng.integers(states)), label, int(rng.integers(4)), float(rng.normal()))
                )
    return fsa_of(arcs, {0: float(rng.normal()), states - 1: float(rng.normal())}, start=1).with_words(WORDS)


def frames(*shape, seed=0, peak=1.5):
    """Log-probabilities."""
    return (peak * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def all_paths(graph, log_probs):
    """Every path through ``log_probs`` (T, V): (labels of frames, words, acoustic score, the
    graph's score).
    """
    paths = [(graph.start, (), (), 0.0, 0.0)]
    for frame in log_probs.tolist():
        paths = [
            (
                int(graph.dest[a]),
                (*labels, int(graph.label[a])),
                (*words, int(graph.output[a])) if graph.output[a] else words,
                am + frame[graph.label[a]],
                score + float(graph.score[a]),
            )
            for state, labels, words, am, score in paths
            for a in range(graph.begin[state], graph.begin[state + 1])
        ]
    ended = [
        (labels, words, am, score + float(graph.final[state])) for state, labels, words, am, score in paths
    ]
    return [path for path in ended if path[3] > -math.inf]


def collapse(labels):
    """Tokens of the labels of frames."""
    return [label for label, _ in itertools.groupby(labels) if label != 0]


def ngram(folder):
    """The n-gram of ``ARPA`` over the ids of ``WORDS``, and its symbol table."""
    table = {**WORDS, "#0": 4, "<s>": 5, "</s>": 6}
    (folder / "lm.arpa").write_text(ARPA)
    return NgramLm.from_arpa(folder / "lm.arpa", table), table


def grammar_score(words):
    """The n-gram's log-probability of a sentence, from the text above."""
    rows = [line.split() for line in ARPA.splitlines() if line.startswith("-")]
    one = {r[1]: (float(r[0]), float(r[2]) if len(r) > 2 else 0.0) for r in rows[:5]}
    two = {(r[1], r[2]): float(r[0]) for r in rows[5:]}
    names = ["<s>", *("?ABC"[w] for w in words), "</s>"]
    return math.log(10) * sum(
        two.get(pair, one[pair[0]][1] + one[pair[1]][0]) for pair in zip(names, names[1:])
    )
