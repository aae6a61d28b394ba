"""Methods that search the transducer with a beam over predictor contexts and graph states."""

import functools
from typing import Callable, Optional

from asr_core.decoding.beam_options import FastBeamOptions, NbestOptions
from asr_core.decoding.device import choice
from asr_core.decoding.method import BEST, Job, MakeStreamingSearch, Method, Results, Unit, of_answers
from asr_core.decoding.methods import option_names
from asr_core.decoding.methods.names import FastBeamNames
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import RecognitionModel
from asr_core.decoding.resources import Resource, Resources
from asr_core.decoding.transducer.fast_beam import StreamingFastBeamSearch, fast_beam_search
from asr_core.decoding.transducer.fast_beam_nbest import fast_beam_nbest, fast_beam_oracle_nbest

# Where paths are drawn without a graph, icefall subtracts this much of the internal language model.
_PATHS_ILME_SCALE = 0.1


def _options(opts: SearchOptions, ilme_scale: float = 0.0) -> FastBeamOptions:
    """Return the options of fast beam search; ``ilme_scale`` holds where the user gave none."""
    return FastBeamOptions(
        beam=opts.beam,
        max_contexts=opts.max_contexts,
        max_states=opts.max_states,
        blank_penalty=opts.blank_penalty,
        temperature=opts.temperature,
        ilme_scale=ilme_scale if opts.ilme_scale is None else opts.ilme_scale,
    )


def _nbest_options(job: Job) -> NbestOptions:
    return NbestOptions(num_paths=job.opts.num_paths, scale=job.opts.nbest_scale, num_best=job.num_best)


def _search(job: Job) -> Results:
    opts, lg = _options(job.opts), job.resources.lg
    found = choice.fast_beam_on_device(job, opts)
    if found is None:
        job = choice.to_cpu(job)
        found = fast_beam_search(job.model, job.encoder_out, job.lens, opts, lg)
    return of_answers(found)


def _stream(model: RecognitionModel, opts: SearchOptions, resources: Resources) -> StreamingFastBeamSearch:
    return StreamingFastBeamSearch(model, _options(opts))


def _paths(job: Job) -> Results:
    lg = job.resources.lg
    lists = fast_beam_nbest(
        job.model,
        job.encoder_out,
        job.lens,
        _options(job.opts, _PATHS_ILME_SCALE if lg is None else 0.0),
        lg,
        _nbest_options(job),
        functools.partial(choice.lattices, job),
    )
    return {BEST: lists}


def _oracle(job: Job) -> Results:
    lists = fast_beam_oracle_nbest(
        job.model,
        job.encoder_out,
        job.lens,
        None if job.references is None else job.references.tokens,
        _options(job.opts, _PATHS_ILME_SCALE),
        _nbest_options(job),
        functools.partial(choice.lattices, job),
    )
    return {BEST: lists}


def _fast_beam_method(
    name: str,
    search: Callable[[Job], Results],
    *,
    graph: bool = False,
    samples: bool = False,
    references: Optional[Unit] = None,
    stream: Optional[MakeStreamingSearch] = None,
) -> Method:
    """Declare a fast beam search; its options and file names follow from the arguments.

    Args:
      graph: whether it searches the graph LG.
      samples: whether paths are drawn from a lattice, which gives n-best lists.
      name, search, references, stream: see :class:`Method`.
    """
    uses = option_names.FAST_BEAM_PATHS if samples else option_names.FAST_BEAM
    return Method(
        name=name,
        search=search,
        needs=frozenset({Resource.LG}) if graph else frozenset(),
        uses=uses | option_names.LG if graph else uses,
        names=FastBeamNames(samples=samples, graph=graph),
        nbest=samples,
        references=references,
        stream=stream,
    )


FAST_BEAM_SEARCH = _fast_beam_method("fast_beam_search", _search, stream=_stream)
LG = _fast_beam_method("fast_beam_search_LG", _search, graph=True)
NBEST = _fast_beam_method("fast_beam_search_nbest", _paths, samples=True)
NBEST_LG = _fast_beam_method("fast_beam_search_nbest_LG", _paths, samples=True, graph=True)
NBEST_ORACLE = _fast_beam_method(
    "fast_beam_search_nbest_oracle", _oracle, samples=True, references=Unit.TOKENS
)
METHODS = (FAST_BEAM_SEARCH, LG, NBEST, NBEST_LG, NBEST_ORACLE)
