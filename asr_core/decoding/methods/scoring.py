"""The scorers that beam searches add to the model's scores."""

from typing import List, Optional

import torch

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.method import Job
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.resources import Resource, Resources
from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.scorers.token_scorers import ContextScorer, NeuralScorer, NgramScorer
from asr_core.decoding.transducer.internal_lm import InternalLmScorer

OPTIONAL_LMS = frozenset({Resource.NEURAL_LM, Resource.LODR_NGRAM, Resource.WORD_NGRAM})
BIASING = frozenset({Resource.CONTEXT_GRAPH})


def beam_options(opts: SearchOptions, num_best: int = 0) -> BeamOptions:
    """Return the options that beam searches share; ``num_best`` 0 stands for all hypotheses."""
    return BeamOptions(
        beam_size=opts.beam_size,
        blank_penalty=opts.blank_penalty,
        temperature=opts.temperature,
        num_best=num_best,
    )


def scorers_of(
    opts: SearchOptions, resources: Resources, device: torch.device, model: Optional[Transducer] = None
) -> List[Scorer]:
    """Make a scorer from each resource that scores tokens.

    Args:
      opts: the weights.
      resources: loaded resources.
      device: device of the search.
      model: a transducer whose internal language model may be subtracted.
    """
    out: List[Scorer] = []
    if resources.neural_lm is not None:
        out.append(NeuralScorer(resources.neural_lm, opts.lm_scale))
    if resources.token_ngram is not None:
        out.append(NgramScorer(resources.token_ngram, opts.ngram_lm_scale, device))
    if resources.lodr_ngram is not None:
        out.append(NgramScorer(resources.lodr_ngram, opts.lodr_lm_scale, device))
    if resources.word_ngram is not None:
        out.append(resources.word_ngram)
    if resources.context_graph is not None:
        out.append(ContextScorer(resources.context_graph, device))
    if model is not None and opts.ilme_scale:
        out.append(InternalLmScorer(model, opts.ilme_scale))
    return out


def transducer_scorers(job: Job) -> List[Scorer]:
    """Return the scorers of a search with the transducer."""
    return scorers_of(job.opts, job.resources, job.encoder_out.device, job.model)
