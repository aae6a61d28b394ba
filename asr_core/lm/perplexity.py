"""Perplexity of an n-gram model on a text."""

import math
from dataclasses import dataclass
from itertools import islice
from typing import Iterable, List

import numpy as np

from asr_core.lm.arpa import LN10
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import UNKNOWN

_SENTENCES_AT_ONCE = 4096


@dataclass
class Perplexity:
    """Sums over a text; every sentence's end is predicted too, and counts as a token.

    Attributes:
      sentences, words: how many.
      oovs: words that the model does not know (those that it only knows as ``<unk>``).
      log_prob: natural log probability of everything, unknown words at the probability of ``<unk>``.
      oov_log_prob: the part of it that stems from unknown words.
    """

    sentences: int = 0
    words: int = 0
    oovs: int = 0
    log_prob: float = 0.0
    oov_log_prob: float = 0.0

    @property
    def with_oovs(self) -> float:
        """Perplexity per word and sentence end."""
        return perplexity_of(self.log_prob, self.words + self.sentences)

    @property
    def without_oovs(self) -> float:
        """The same without the unknown words; their neighbours are predicted with ``<unk>`` in their history."""
        return perplexity_of(self.log_prob - self.oov_log_prob, self.words + self.sentences - self.oovs)

    def __str__(self) -> str:
        return (
            f"{self.sentences} sentences, {self.words} words, {self.oovs} unknown; log10 probability {self.log_prob / LN10:.4f}; "
            f"perplexity {self.with_oovs:.4f}, without unknown words {self.without_oovs:.4f}"
        )


def perplexity_of(log_prob: float, tokens: int) -> float:
    """The perplexity of ``tokens`` tokens of natural log probability ``log_prob``."""
    if tokens == 0:
        return math.nan
    mean = -log_prob / tokens
    return math.exp(mean) if mean < 700 else math.inf


def perplexity(lm: NgramLm, sentences: Iterable[List[str]]) -> Perplexity:
    """Measure ``lm`` on sentences, each a list of words."""
    out = Perplexity()
    unknown = {lm.symbols[name] for name in UNKNOWN if name in lm.symbols}
    ids = {word: i for word, i in lm.symbols.items() if lm.is_known(i) and i not in unknown}
    oov = min(unknown, default=-1)
    todo = iter(sentences)
    while batch := list(islice(todo, _SENTENCES_AT_ONCE)):
        # longest first: the sentences that still go on are always the first ones
        coded = sorted(
            (np.array([ids.get(word, oov) for word in words], dtype=np.int32) for words in batch),
            key=len,
            reverse=True,
        )
        lens = np.array([len(c) for c in coded])
        states = np.full(len(coded), lm.initial_state(), dtype=np.int32)
        for t in range(lens[0]):
            live = int((lens > t).sum())
            tokens = np.array([c[t] for c in coded[:live]], dtype=np.int32)
            log_probs, states[:live] = lm.score_batch(states[:live], tokens)
            is_oov = tokens == oov
            out.oovs += int(is_oov.sum())
            out.log_prob += float(log_probs.sum(dtype=np.float64))
            out.oov_log_prob += float(log_probs[is_oov].sum(dtype=np.float64))
        out.log_prob += sum(lm.final_score(int(state)) for state in states)
        out.sentences += len(coded)
        out.words += int(lens.sum())
    return out
