"""Methods that search the transducer frame by frame: greedy search and beam searches."""

from typing import List

from asr_core.decoding.beam_options import GreedyOptions
from asr_core.decoding.device import choice
from asr_core.decoding.device.beam import modified_beam_search_on_device
from asr_core.decoding.device.scorers import device_scorers, has_device_form, scorers_key
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import BEST, Job, Method, Results, of_answers
from asr_core.decoding.methods import names, option_names
from asr_core.decoding.methods.names import BeamNames, GreedyNames
from asr_core.decoding.methods.scoring import (
    BIASING,
    OPTIONAL_LMS,
    beam_options,
    scorers_of,
    transducer_scorers,
)
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import RecognitionModel
from asr_core.decoding.resources import Resource, Resources
from asr_core.decoding.scorers.rescoring import rescore
from asr_core.decoding.transducer.alsd import alignment_length_sync_search
from asr_core.decoding.transducer.graves_beam import graves_beam_search
from asr_core.decoding.transducer.greedy import StreamingGreedySearch
from asr_core.decoding.transducer.modified_beam import StreamingBeamSearch, modified_beam_search


def _greedy_options(opts: SearchOptions) -> GreedyOptions:
    return GreedyOptions(
        max_sym_per_frame=opts.max_sym_per_frame,
        blank_penalty=opts.blank_penalty,
        temperature=opts.temperature,
    )


def _greedy(job: Job) -> Results:
    phrases = job.resources.context_graph
    found = choice.greedy(job.model, job.encoder_out, job.lens, _greedy_options(job.opts), phrases=phrases)
    return of_answers(found)


def _stream_greedy(
    model: RecognitionModel, opts: SearchOptions, resources: Resources
) -> StreamingGreedySearch:
    return StreamingGreedySearch(model, _greedy_options(opts), phrases=resources.context_graph)


def _graves(job: Job) -> Results:
    opts, job = beam_options(job.opts, job.num_best), choice.to_cpu(job)
    return {BEST: graves_beam_search(job.model, job.encoder_out, job.lens, opts)}


def _modified(job: Job) -> Results:
    opts, resources = beam_options(job.opts, job.num_best), job.resources
    if not (choice.on_gpu(job.encoder_out) and has_device_form(resources)):
        scorers = transducer_scorers(job)
        return {BEST: modified_beam_search(job.model, job.encoder_out, job.lens, opts, scorers=scorers)}
    vocab_size = int(job.model.decoder.vocab_size)
    found = modified_beam_search_on_device(
        job.model,
        job.encoder_out,
        job.lens,
        opts,
        lambda: device_scorers(job.opts, resources, vocab_size, job.encoder_out.device, job.model),
        scorers_key(job.opts, resources),
    )
    return {BEST: found}


def _without_scorers(job: Job) -> List[List[Hypothesis]]:
    """Return the n-best lists of modified beam search with the model alone."""
    on_gpu = choice.on_gpu(job.encoder_out)
    search = modified_beam_search_on_device if on_gpu else modified_beam_search
    return search(job.model, job.encoder_out, job.lens, beam_options(job.opts))


def _stream_modified(
    model: RecognitionModel, opts: SearchOptions, resources: Resources
) -> StreamingBeamSearch:
    device = next(model.joiner.encoder_proj.parameters()).device
    return StreamingBeamSearch(model, beam_options(opts), scorers=scorers_of(opts, resources, device, model))


def _rescored(job: Job) -> Results:
    """Rescore the n-best lists of modified beam search with language models, under many weights."""
    lm = job.resources.neural_lm
    assert lm is not None, "the method declares that it needs one"
    found = rescore(_without_scorers(job), lm, job.resources.token_ngram)
    return {name: [[hypothesis] for hypothesis in answers] for name, answers in found.items()}


def _alignment_length_sync(job: Job) -> Results:
    lists = alignment_length_sync_search(
        job.model,
        job.encoder_out,
        job.lens,
        beam_options(job.opts, job.num_best),
        scorers=transducer_scorers(job),
        merge=job.opts.alsd_merge,
    )
    return {BEST: lists}


GREEDY_SEARCH = Method(
    name="greedy_search",
    search=_greedy,
    stream=_stream_greedy,
    optional=BIASING,
    uses=option_names.DISTRIBUTION | option_names.BIASING | {"max_sym_per_frame"},
    names=GreedyNames(phrases=True),
)
BEAM_SEARCH = Method(
    name="beam_search", search=_graves, nbest=True, uses=option_names.BEAM, names=BeamNames()
)
MODIFIED_BEAM_SEARCH = Method(
    name="modified_beam_search",
    search=_modified,
    stream=_stream_modified,
    nbest=True,
    optional=BIASING,
    uses=option_names.BEAM | option_names.BIASING | {"ilme_scale"},
    names=BeamNames(phrases=True, settings=(names.internal_lm,)),
)
SHALLOW_FUSION = Method(
    name="modified_beam_search_lm_shallow_fusion",
    search=_modified,
    nbest=True,
    needs=frozenset({Resource.NEURAL_LM}),
    uses=option_names.BEAM | option_names.NEURAL_LM | {"ilme_scale"},
    names=BeamNames(settings=(names.internal_lm,), models=(names.weighted_neural_lm,)),
)
LODR = Method(
    name="modified_beam_search_LODR",
    search=_modified,
    nbest=True,
    needs=frozenset({Resource.NEURAL_LM, Resource.TOKEN_NGRAM}),
    optional=BIASING,
    uses=option_names.BEAM
    | option_names.NEURAL_LM
    | option_names.TOKEN_NGRAM
    | option_names.BIASING
    | {"ilme_scale", "ngram_lm_scale"},
    names=BeamNames(
        phrases=True,
        settings=(names.internal_lm,),
        models=(names.weighted_neural_lm, names.weighted_token_ngram),
    ),
)
LM_RESCORE = Method(
    name="modified_beam_search_lm_rescore",
    search=_rescored,
    needs=frozenset({Resource.NEURAL_LM}),
    uses=option_names.BEAM | {"lm_type", "use_shallow_fusion"},
    names=BeamNames(models=(names.neural_lm_kind,)),
)
LM_RESCORE_LODR = Method(
    name="modified_beam_search_lm_rescore_LODR",
    search=_rescored,
    needs=frozenset({Resource.NEURAL_LM, Resource.TOKEN_NGRAM}),
    uses=option_names.BEAM | option_names.TOKEN_NGRAM | {"lm_type", "use_shallow_fusion"},
    names=BeamNames(models=(names.neural_lm_kind, names.token_ngram_kind)),
)
ALSD = Method(
    name="alignment_length_sync_search",
    search=_alignment_length_sync,
    nbest=True,
    optional=OPTIONAL_LMS | BIASING,
    uses=option_names.BEAM | option_names.OPTIONAL_LMS | option_names.BIASING | {"ilme_scale", "alsd_merge"},
    names=BeamNames(phrases=True, settings=(names.merging, names.internal_lm), models=(names.optional_lms,)),
)
METHODS = (
    GREEDY_SEARCH,
    BEAM_SEARCH,
    MODIFIED_BEAM_SEARCH,
    SHALLOW_FUSION,
    LODR,
    LM_RESCORE,
    LM_RESCORE_LODR,
    ALSD,
)
