"""Resources of searches: language models, graphs, phrases for contextual biasing."""

import enum
from dataclasses import dataclass
from typing import Optional

from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.word_lm import WordLm
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.scorers.word_ngram import WordNgramScorer
from asr_core.lm.neural import NeuralLm
from asr_core.lm.ngram import NgramLm


class Resource(enum.Enum):
    """A field of :class:`Resources`, as methods declare what they need."""

    NEURAL_LM = "neural_lm"
    TOKEN_NGRAM = "token_ngram"
    LODR_NGRAM = "lodr_ngram"
    WORD_NGRAM = "word_ngram"
    CONTEXT_GRAPH = "context_graph"
    LG = "lg"
    HLG = "hlg"
    WORD_LM = "word_lm"


@dataclass(frozen=True)
class Resources:
    """Resources of a search; None for those that its method does not need.

    Attributes:
      neural_lm: neural language model over tokens.
      token_ngram: n-gram over token ids of ``--tokens-ngram``.
      lodr_ngram: n-gram over token ids of ``--lodr-ngram``, with its own weight.
      word_ngram: word n-gram that scores tokens.
      context_graph: phrases to bias towards.
      lg: decoding graph from tokens to words.
      hlg: decoding graph from frames to words, for CTC.
      word_lm: word n-gram that rescores the results of ``hlg``.
    """

    neural_lm: Optional[NeuralLm] = None
    token_ngram: Optional[NgramLm] = None
    lodr_ngram: Optional[NgramLm] = None
    word_ngram: Optional[WordNgramScorer] = None
    context_graph: Optional[ContextGraph] = None
    lg: Optional[Fsa] = None
    hlg: Optional[Fsa] = None
    word_lm: Optional[WordLm] = None
