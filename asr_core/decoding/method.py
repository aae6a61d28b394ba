"""The interface of decoding methods: declaration, input and results."""

import enum
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Optional, Sequence

from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.methods.names import MethodNames
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import RecognitionModel, StreamingSearch
from asr_core.decoding.resources import Resource, Resources

BEST = "best"  # name of the result of a method that has only one
NBestLists = List[List[Hypothesis]]
# For each result, by its name, and each utterance the hypotheses, the best first. Methods that
# rescore have one result for each weight of a model.
Results = Dict[str, NBestLists]
MakeStreamingSearch = Callable[[RecognitionModel, SearchOptions, Resources], StreamingSearch[Any]]


class Head(enum.Enum):
    """The output of the model that a method searches."""

    TRANSDUCER = "transducer"
    CTC = "ctc"


class Unit(enum.Enum):
    """The unit in which an oracle counts errors."""

    TOKENS = "tokens"
    WORDS = "words"


class KeywordOnly:
    """Base of dataclasses whose fields are given by name, as with ``kw_only`` of Python 3.10."""

    def __new__(cls, **fields: object) -> "KeywordOnly":
        return super().__new__(cls)


@dataclass(frozen=True)
class Transcripts(KeywordOnly):
    """The references of a batch, in the unit that the method asks for.

    Attributes:
      tokens: token ids of each utterance.
      words: words of each utterance.
    """

    tokens: Sequence[Sequence[int]] = ()
    words: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Job(KeywordOnly):
    """A batch to search.

    Attributes:
      model: an AsrModel in evaluation mode, or a scripted one.
      encoder_out: (N, T, C).
      lens: (N,) int64, frames of each utterance.
      opts: search options.
      resources: resources of the method besides the model.
      references: transcripts, for oracles.
      num_best: hypotheses wanted of each utterance; methods without n-best lists return one.
    """

    model: RecognitionModel
    encoder_out: Tensor
    lens: Tensor
    opts: SearchOptions
    resources: Resources = Resources()
    references: Optional[Transcripts] = None
    num_best: int = 1


@dataclass(frozen=True)
class Method(KeywordOnly):
    """A decoding method.

    Attributes:
      name: value of ``--decoding-method``.
      search: finds the hypotheses of a batch; the first of each list is the answer.
      uses: names of the search options that have an effect.
      names: the method's part of the names of result files.
      head: the output that it searches.
      needs: resources that it cannot work without.
      optional: resources that it uses if the options name them.
      expects_one_of: optional resources of which at least one should be given.
      references: unit in which an oracle compares with the transcripts; None for other methods.
      attention_decoder: whether it rescores with the model's attention decoder.
      nbest: whether its lists hold further hypotheses, no two with the same tokens.
      stream: makes the search over streams; None where the method cannot stream.
    """

    name: str
    search: Callable[[Job], Results]
    uses: FrozenSet[str]
    names: MethodNames
    head: Head = Head.TRANSDUCER
    needs: FrozenSet[Resource] = frozenset()
    optional: FrozenSet[Resource] = frozenset()
    expects_one_of: FrozenSet[Resource] = frozenset()
    references: Optional[Unit] = None
    attention_decoder: bool = False
    nbest: bool = False
    stream: Optional[MakeStreamingSearch] = None


def of_answers(answers: Sequence[Hypothesis]) -> Results:
    """Return the results of a method that finds one hypothesis for each utterance."""
    return {BEST: [[hypothesis] for hypothesis in answers]}
