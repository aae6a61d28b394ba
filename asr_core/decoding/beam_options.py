"""Options of the searches, as the searches take them; command lines have
:class:`~asr_core.decoding.options.SearchOptions`.
"""

from dataclasses import dataclass
from typing import Protocol


class LogitAdjustment(Protocol):
    """Options that change the model's output distribution before a search, see
    :class:`LogitOptions`.
    """

    @property
    def blank_penalty(self) -> float:
        """Amount subtracted from the logit of blank."""
        ...

    @property
    def temperature(self) -> float:
        """Divisor of the logits."""
        ...


@dataclass(frozen=True)
class LogitOptions:
    """Changes to the model's output distribution before a search sees it.

    Attributes:
      blank_penalty: subtracted from the logit of blank: above 0 fewer deletions, more insertions.
      temperature: logits are divided by it; above 1 the distribution becomes flatter.
    """

    blank_penalty: float = 0.0
    temperature: float = 1.0


@dataclass(frozen=True)
class GreedyOptions(LogitOptions):
    """Options of greedy search with a transducer.

    Attributes:
      max_sym_per_frame: tokens that a frame may emit before the search moves on to the next one.
    """

    max_sym_per_frame: int = 1

    def __post_init__(self) -> None:
        if self.max_sym_per_frame < 1:
            raise ValueError(f"max_sym_per_frame must be at least 1, got {self.max_sym_per_frame}")


@dataclass(frozen=True)
class BeamOptions(LogitOptions):
    """Options that all searches with a fixed number of hypotheses share.

    Attributes:
      beam_size: hypotheses kept per utterance.
      num_best: hypotheses returned per utterance at most; 0: all.
    """

    beam_size: int = 4
    num_best: int = 0

    def __post_init__(self) -> None:
        if self.beam_size < 1:
            raise ValueError(f"beam_size must be at least 1, got {self.beam_size}")


@dataclass(frozen=True)
class FastBeamOptions(LogitOptions):
    """Options of fast beam search.

    Attributes:
      beam: states whose score is lower than the best by more than this (natural log-probability)
        are dropped.
      max_contexts: predictor contexts kept per frame.
      max_states: pairs of context and graph state kept per frame.
      ilme_scale: weight of the internal language model, which is subtracted.
    """

    beam: float = 20.0
    max_contexts: int = 8
    max_states: int = 64
    ilme_scale: float = 0.0

    def __post_init__(self) -> None:
        if not (self.beam > 0 and self.max_contexts >= 1 and self.max_states >= 1):
            raise ValueError(f"beam must be positive, max_contexts and max_states at least 1, got {self}")


@dataclass(frozen=True)
class GraphSearchOptions:
    """Limits of the search over a graph.

    Attributes:
      search_beam: at each frame, states of the graph live on whose score is lower than the best by
        at most this (natural log-probability).
      output_beam: the lattice keeps arcs whose best path is worse than the best of all by at most
        this.
      min_active: states that live on at each frame at least, however bad.
      max_active: states that live on at most.
      backend: "own", "k2", or "auto": k2 if it is installed and the model is on a GPU.
    """

    search_beam: float = 20.0
    output_beam: float = 8.0
    min_active: int = 30
    max_active: int = 10000
    backend: str = "auto"


@dataclass(frozen=True)
class NbestOptions:
    """Options of n-best lists that are drawn from lattices.

    Attributes:
      num_paths: paths drawn from each lattice.
      scale: the lattice's scores are multiplied by it while drawing: the smaller it is, the more
        the paths vary.
      num_best: hypotheses returned per utterance at most; 0: all.
    """

    num_paths: int = 200
    scale: float = 0.5
    num_best: int = 0
