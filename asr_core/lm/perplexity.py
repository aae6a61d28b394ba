"""Perplexity of language models on a text."""

import math
from dataclasses import dataclass
from itertools import islice
from typing import Iterable, List

import numpy as np
import torch

from asr_core.lm.archive import LmArchive, batches_of
from asr_core.lm.arpa import LN10
from asr_core.lm.neural import NeuralLm, pad_tokens
from asr_core.lm.ngram import NgramLm
from asr_core.lm.symbols import UNKNOWN, text_lines
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

_SENTENCES_AT_ONCE = 4096  # whose next words are looked up together
_LARGEST_EXPONENT = 700  # beyond it exp() overflows


@dataclass
class Perplexity:
    """Sums over a text; the end of each sentence is predicted, too, and counts as a token.

    Attributes:
      sentences, words: their numbers.
      oovs: number of words that the model knows only as ``<unk>``.
      log_prob: natural log-probability of everything, unknown words at the probability of
        ``<unk>``.
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
        """Perplexity without unknown words, which remain in histories as ``<unk>``."""
        return perplexity_of(self.log_prob - self.oov_log_prob, self.words + self.sentences - self.oovs)

    def __str__(self) -> str:
        return (
            f"{self.sentences} sentences, {self.words} words, {self.oovs} unknown; "
            f"log10 probability {self.log_prob / LN10:.4f}; "
            f"perplexity {self.with_oovs:.4f}, without unknown words {self.without_oovs:.4f}"
        )


def perplexity_of(log_prob: float, tokens: int) -> float:
    """Return the perplexity of ``tokens`` tokens of natural log-probability ``log_prob``."""
    if tokens == 0:
        return math.nan
    mean = -log_prob / tokens
    return math.exp(mean) if mean < _LARGEST_EXPONENT else math.inf


def perplexity(lm: NgramLm, sentences: Iterable[List[str]]) -> Perplexity:
    """Measure ``lm`` on sentences, each a list of words."""
    out = Perplexity()
    unknown = {lm.symbols[name] for name in UNKNOWN if name in lm.symbols}
    ids = {word: i for word, i in lm.symbols.items() if lm.is_known(i) and i not in unknown}
    oov = min(unknown, default=-1)
    todo = iter(sentences)
    while batch := list(islice(todo, _SENTENCES_AT_ONCE)):
        coded = [np.array([ids.get(word, oov) for word in words], dtype=np.int32) for words in batch]
        coded.sort(key=len, reverse=True)  # so that the sentences that go on are always the first ones
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


def ngram_perplexity_of_files(lm: PathLike, text: PathLike) -> Perplexity:
    """Measure an ARPA model on a text, one sentence a line.

    Raises:
      UserError: a file is missing or damaged.
    """
    return perplexity(NgramLm.from_arpa(lm), (words for _, words in text_lines(text)))


@torch.inference_mode()
def neural_perplexity(lm: NeuralLm, data: LmArchive, batch_size: int) -> Perplexity:
    """Measure a neural model on a text in tokens.

    Args:
      lm: the model.
      data: the text.
      batch_size: sentences at once.

    Raises:
      UserError: the text has tokens that the model does not have.
    """
    most = int(data.words.max())
    if most >= lm.vocab_size:
        raise UserError(
            f"the text has token {most}, and the model only {lm.vocab_size} tokens: "
            "are they of the same tokenizer?"
        )
    device = next(lm.parameters()).device
    out = Perplexity(words=len(data.sentences))
    longest = int(data.sentence_lengths.max())
    for indices in batches_of(data.sentence_lengths.tolist(), batch_size, longest):
        picked = torch.as_tensor(indices)
        x, y, lens = pad_tokens(data.tokens_of(picked), data.sentence_lengths[picked])  # (N, L) twice, (N,)
        out.log_prob -= float(lm(x.to(device), y.to(device), lens.to(device)).double().sum())
        out.sentences += len(indices)
    return out
