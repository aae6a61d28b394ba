"""Where a batch is searched.

On the CPU as ever; on a GPU by the searches of this package; and where they cannot, on the CPU with
copies of predictor and joiner, to which the encoder's output goes once per batch.
"""

import copy
import dataclasses
from typing import Any, List, NamedTuple, Optional, cast

import torch
from torch import Tensor, nn

from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions, GreedyOptions
from asr_core.decoding.device.automata import fits_boosts
from asr_core.decoding.device.beam import fast_beam_search_on_device
from asr_core.decoding.device.ctc_prefix import ctc_prefix_beam_search_on_device
from asr_core.decoding.device.graph_beam import fast_beam_search_with_graph, lattices_on_device
from asr_core.decoding.device.label_looping import label_looping_search
from asr_core.decoding.device.replay import kept
from asr_core.decoding.device.scorers import device_scorers, has_device_form, scorers_key
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import Job
from asr_core.decoding.protocol import RecognitionModel, StatelessDecoder, Transducer
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.transducer.context_table import fits_table
from asr_core.decoding.transducer.fast_beam_nbest import find_lattices
from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.decoding.transducer.predictor import is_recurrent
from asr_core.ops.gpu import dispatch
from asr_core.utils.device import to_host

_MAX_CONTEXTS = 16  # of fast beam search on the device, whose work grows with the fourth power
_MAX_PREFIXES = 128  # of CTC prefix search on the device, whose work grows with the square


def on_gpu(x: Tensor) -> bool:
    """Return whether the searches for GPUs are the right ones for ``x``, as they are for tests of
    their kernels.
    """
    return x.is_cuda or dispatch.interpreted()


def greedy(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: GreedyOptions = GreedyOptions(),
    *,
    phrases: Optional[ContextGraph] = None,
) -> List[Hypothesis]:
    """Search as :func:`~asr_core.decoding.transducer.greedy.greedy_search` does."""
    fits = fits_boosts(phrases, int(model.decoder.vocab_size))
    search = label_looping_search if on_gpu(encoder_out) and fits else greedy_search
    return search(model, encoder_out, encoder_out_lens, opts, phrases=phrases)


def fast_beam_on_device(job: Job, opts: FastBeamOptions) -> Optional[List[Hypothesis]]:
    """Search the job's graph LG, or without a graph, on the device; None where that is no use: on
    the CPU, with an LSTM predictor, or with very many contexts or arcs.
    """
    graph = job.resources.lg
    if not _fast_beam_fits(
        job, opts.max_contexts if graph is not None else min(opts.max_contexts, opts.max_states)
    ):
        return None
    if graph is not None:
        return fast_beam_search_with_graph(job.model, job.encoder_out, job.lens, opts, graph)
    return fast_beam_search_on_device(job.model, job.encoder_out, job.lens, opts)


def lattices(job: Job, opts: FastBeamOptions, graph: Fsa) -> List[Lattice]:
    """Return the lattices of fast beam search, found on the device where
    :func:`fast_beam_on_device` searches there, on the CPU where not.
    """
    found: Optional[List[Lattice]] = None
    if _fast_beam_fits(job, opts.max_contexts):
        found = lattices_on_device(job.model, job.encoder_out, job.lens, opts, graph)
    if found is None:
        job = to_cpu(job)
        found = find_lattices(job.model, job.encoder_out, job.lens, opts, graph)
    return found


def _fast_beam_fits(job: Job, contexts: int) -> bool:
    decoder = job.model.decoder
    return (
        on_gpu(job.encoder_out)
        and not is_recurrent(decoder)
        and fits_table(cast(StatelessDecoder, decoder))
        and contexts <= _MAX_CONTEXTS
    )


def ctc_prefix_on_device(job: Job, opts: BeamOptions) -> Optional[List[List[Hypothesis]]]:
    """Return what :func:`~asr_core.decoding.ctc.prefix_beam.ctc_prefix_beam_search` finds with the
    job's resources, on the device; None where that is no use: on the CPU, with a transformer, or
    with very many prefixes.
    """
    on_device = on_gpu(job.encoder_out) and has_device_form(job.resources)
    if not on_device or opts.beam_size > _MAX_PREFIXES:
        return None
    device = job.encoder_out.device
    return ctc_prefix_beam_search_on_device(
        job.model,
        job.encoder_out,
        job.lens,
        opts,
        lambda vocab_size: device_scorers(job.opts, job.resources, vocab_size, device),
        scorers_key(job.opts, job.resources),
    )


class _Heads(NamedTuple):
    """A transducer's predictor and joiner."""

    decoder: Any
    joiner: Any


@torch.inference_mode()
def to_cpu(job: Job) -> Job:
    """Return a batch for searches that run on the CPU: float32 copies of the transducer's heads,
    and of the encoder's output.
    """
    if not on_gpu(job.encoder_out):
        return job
    heads = kept(
        job.model,
        "copies on the CPU",
        lambda: _Heads(*(_on_cpu(part) for part in (job.model.decoder, job.model.joiner))),
    )
    return dataclasses.replace(
        job,
        model=cast(RecognitionModel, heads),
        encoder_out=to_host(job.encoder_out).float(),
        lens=to_host(job.lens),
    )


def _on_cpu(part: object) -> nn.Module:
    return copy.deepcopy(cast(nn.Module, part)).to("cpu", torch.float32)
