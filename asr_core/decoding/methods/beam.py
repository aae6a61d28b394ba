"""Decoding methods that search token sequences: greedy and beam searches with what adds to their scores."""

from typing import TYPE_CHECKING, Any, Dict, List, Optional

import torch

from asr_core.decoding.beam_options import BeamOptions, GreedyOptions
from asr_core.decoding.ctc.prefix_beam import StreamingCtcPrefixSearch, ctc_prefix_beam_search
from asr_core.decoding.hypothesis import Hypothesis, one_best
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.resources import Resources
from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.scorers.rescoring import rescore
from asr_core.decoding.scorers.token_scorers import ContextScorer, NeuralScorer, NgramScorer
from asr_core.decoding.transducer.alsd import alignment_length_sync_search
from asr_core.decoding.transducer.graves_beam import graves_beam_search
from asr_core.decoding.transducer.greedy import StreamingGreedySearch, greedy_search
from asr_core.decoding.transducer.internal_lm import InternalLmScorer
from asr_core.decoding.transducer.modified_beam import StreamingBeamSearch, modified_beam_search

if TYPE_CHECKING:
    from asr_core.decoding.registry import Job

_Results = Dict[str, List[Hypothesis]]
_Lists = List[List[Hypothesis]]


def scorers(
    opts: SearchOptions, resources: Resources, device: torch.device, model: Optional[Any] = None
) -> List[Scorer]:
    """What beam searches add to their scores; of a transducer ``model`` the internal language model may be subtracted."""
    out: List[Scorer] = []
    if resources.lm is not None:
        out.append(NeuralScorer(resources.lm, opts.lm_scale))
    if resources.ngram is not None:
        out.append(NgramScorer(resources.ngram, opts.ngram_lm_scale, device))
    if resources.lodr is not None:
        out.append(NgramScorer(resources.lodr, opts.lodr_lm_scale, device))
    if resources.words is not None:
        out.append(resources.words)
    if resources.context_graph is not None:
        out.append(ContextScorer(resources.context_graph, device))
    if model is not None and opts.ilme_scale:
        out.append(InternalLmScorer(model, opts.ilme_scale))
    return out


def beam_options(opts: SearchOptions, num_best: int = 0) -> BeamOptions:
    """Return the options that beam searches share."""
    return BeamOptions(
        beam_size=opts.beam_size,
        blank_penalty=opts.blank_penalty,
        temperature=opts.temperature,
        num_best=num_best,
    )


def _greedy_options(opts: SearchOptions) -> GreedyOptions:
    return GreedyOptions(
        max_sym_per_frame=opts.max_sym_per_frame,
        blank_penalty=opts.blank_penalty,
        temperature=opts.temperature,
    )


def _transducer_scorers(job: "Job") -> List[Scorer]:
    return scorers(job.opts, job.resources, job.encoder_out.device, job.model)


def greedy(job: "Job") -> _Results:
    """Greedy search."""
    phrases = job.resources.context_graph
    found = greedy_search(job.model, job.encoder_out, job.lens, _greedy_options(job.opts), phrases=phrases)
    return {"": found}


def stream_greedy(model: Any, o: SearchOptions, resources: Resources) -> StreamingGreedySearch:
    """Greedy search over streams."""
    return StreamingGreedySearch(model, _greedy_options(o), phrases=resources.context_graph)


def graves_beam(job: "Job") -> _Results:
    """Graves' beam search."""
    return {"": one_best(graves_lists(job, 1))}


def graves_lists(job: "Job", num_best: int = 0) -> _Lists:
    """The n best of :func:`graves_beam`."""
    return graves_beam_search(job.model, job.encoder_out, job.lens, beam_options(job.opts, num_best))


def modified(job: "Job") -> _Results:
    """Modified beam search."""
    return {"": one_best(modified_lists(job, 1))}


def modified_lists(job: "Job", num_best: int = 0) -> _Lists:
    """The n best of :func:`modified`."""
    return modified_beam_search(
        job.model,
        job.encoder_out,
        job.lens,
        beam_options(job.opts, num_best),
        scorers=_transducer_scorers(job),
    )


def stream_modified(model: Any, o: SearchOptions, resources: Resources) -> StreamingBeamSearch:
    """Modified beam search over streams."""
    extra = scorers(o, resources, next(model.joiner.parameters()).device, model)
    return StreamingBeamSearch(model, beam_options(o), scorers=extra)


def rescored(job: "Job") -> _Results:
    """The n best of modified beam search, scored whole by language models."""
    found = modified_beam_search(job.model, job.encoder_out, job.lens, beam_options(job.opts))
    return rescore(found, job.resources.lm, job.resources.ngram)


def alignment_length_sync(job: "Job") -> _Results:
    """Alignment-length synchronous search."""
    return {"": one_best(alignment_length_sync_lists(job, 1))}


def alignment_length_sync_lists(job: "Job", num_best: int = 0) -> _Lists:
    """The n best of :func:`alignment_length_sync`."""
    return alignment_length_sync_search(
        job.model,
        job.encoder_out,
        job.lens,
        beam_options(job.opts, num_best),
        scorers=_transducer_scorers(job),
        merge=job.opts.alsd_merge,
    )


def prefix(job: "Job") -> _Results:
    """CTC prefix beam search."""
    return {"": one_best(prefix_lists(job, 1))}


def prefix_lists(job: "Job", num_best: int = 0) -> _Lists:
    """The n best of :func:`prefix`."""
    return ctc_prefix_beam_search(
        job.model,
        job.encoder_out,
        job.lens,
        beam_options(job.opts, num_best),
        scorers=scorers(job.opts, job.resources, job.encoder_out.device),
    )


def stream_prefix(model: Any, o: SearchOptions, resources: Resources) -> StreamingCtcPrefixSearch:
    """CTC prefix beam search over streams."""
    extra = scorers(o, resources, next(model.ctc_output.parameters()).device)
    return StreamingCtcPrefixSearch(model, beam_options(o), scorers=extra)
