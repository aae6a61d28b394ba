"""Decoding methods that search token sequences: greedy and beam searches with what adds to their scores."""

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import torch

from asr_core.decoding.ctc import prefix_beam as ctc_prefix
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.resources import Resources
from asr_core.decoding.scorers.rescoring import rescore
from asr_core.decoding.scorers.token_scorers import (
    ContextScorer,
    InternalLmScorer,
    NeuralScorer,
    NgramScorer,
    Scorer,
)
from asr_core.decoding.transducer import alsd
from asr_core.decoding.transducer import graves_beam as graves
from asr_core.decoding.transducer.greedy import StreamingGreedySearch, greedy_search
from asr_core.decoding.transducer.modified_beam import (
    StreamingBeamSearch,
    modified_beam_nbest,
    modified_beam_search,
)

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


def _arguments(job: "Job") -> Tuple[Any, ...]:
    """The arguments that all beam searches have."""
    o = job.opts
    return job.model, job.encoder_out, job.lens, o.beam_size, o.blank_penalty, o.temperature


def _transducer_scorers(job: "Job") -> List[Scorer]:
    return scorers(job.opts, job.resources, job.encoder_out.device, job.model)


def greedy(job: "Job") -> _Results:
    """Greedy search."""
    o, batch = job.opts, (job.model, job.encoder_out, job.lens)
    return {
        "": greedy_search(
            *batch, o.max_sym_per_frame, o.blank_penalty, o.temperature, job.resources.context_graph
        )
    }


def stream_greedy(model: Any, o: SearchOptions, resources: Resources) -> StreamingGreedySearch:
    """Greedy search over streams."""
    return StreamingGreedySearch(
        model, o.max_sym_per_frame, o.blank_penalty, o.temperature, resources.context_graph
    )


def graves_beam(job: "Job") -> _Results:
    """Graves' beam search."""
    return {"": graves.beam_search(*_arguments(job))}


def graves_lists(job: "Job") -> _Lists:
    """The n best of :func:`graves_beam`."""
    return graves.beam_search_nbest(*_arguments(job))


def modified(job: "Job") -> _Results:
    """Modified beam search."""
    return {"": modified_beam_search(*_arguments(job), _transducer_scorers(job))}


def modified_lists(job: "Job") -> _Lists:
    """The n best of :func:`modified`."""
    return modified_beam_nbest(*_arguments(job), _transducer_scorers(job))


def stream_modified(model: Any, o: SearchOptions, resources: Resources) -> StreamingBeamSearch:
    """Modified beam search over streams."""
    device = next(model.joiner.parameters()).device
    return StreamingBeamSearch(
        model, o.beam_size, o.blank_penalty, o.temperature, scorers(o, resources, device, model)
    )


def rescored(job: "Job") -> _Results:
    """The n best of modified beam search, scored whole by language models."""
    return rescore(modified_beam_nbest(*_arguments(job)), job.resources.lm, job.resources.ngram)


def alignment_length_sync(job: "Job") -> _Results:
    """Alignment-length synchronous search."""
    return {
        "": alsd.alignment_length_sync_search(*_arguments(job), job.opts.alsd_merge, _transducer_scorers(job))
    }


def alignment_length_sync_lists(job: "Job") -> _Lists:
    """The n best of :func:`alignment_length_sync`."""
    return alsd.alignment_length_sync_nbest(*_arguments(job), job.opts.alsd_merge, _transducer_scorers(job))


def prefix(job: "Job") -> _Results:
    """CTC prefix beam search."""
    return {
        "": ctc_prefix.ctc_prefix_beam_search(
            *_arguments(job), scorers(job.opts, job.resources, job.encoder_out.device)
        )
    }


def prefix_lists(job: "Job") -> _Lists:
    """The n best of :func:`prefix`."""
    return ctc_prefix.ctc_prefix_nbest(
        *_arguments(job), scorers(job.opts, job.resources, job.encoder_out.device)
    )


def stream_prefix(model: Any, o: SearchOptions, resources: Resources) -> ctc_prefix.StreamingCtcPrefixSearch:
    """CTC prefix beam search over streams."""
    extra = scorers(o, resources, next(model.ctc_output.parameters()).device)
    return ctc_prefix.StreamingCtcPrefixSearch(model, o.beam_size, o.blank_penalty, o.temperature, extra)
