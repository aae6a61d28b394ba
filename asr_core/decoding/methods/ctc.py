"""Methods that search the output of the CTC head without a graph."""

from asr_core.decoding.ctc.greedy import StreamingCtcGreedySearch, ctc_greedy_search
from asr_core.decoding.ctc.prefix_beam import StreamingCtcPrefixSearch, ctc_prefix_beam_search
from asr_core.decoding.device import choice
from asr_core.decoding.method import BEST, Head, Job, Method, Results, of_answers
from asr_core.decoding.methods import names, option_names
from asr_core.decoding.methods.names import BeamNames, MethodNames
from asr_core.decoding.methods.scoring import BIASING, OPTIONAL_LMS, beam_options, scorers_of
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import RecognitionModel
from asr_core.decoding.resources import Resources


def _greedy(job: Job) -> Results:
    return of_answers(ctc_greedy_search(job.model, job.encoder_out, job.lens, job.opts))


def _stream_greedy(
    model: RecognitionModel, opts: SearchOptions, resources: Resources
) -> StreamingCtcGreedySearch:
    return StreamingCtcGreedySearch(model, opts)


def _prefix(job: Job) -> Results:
    opts = beam_options(job.opts, job.num_best)
    found = choice.ctc_prefix_on_device(job, opts)
    if found is None:
        scorers = scorers_of(job.opts, job.resources, job.encoder_out.device)
        found = ctc_prefix_beam_search(job.model, job.encoder_out, job.lens, opts, scorers=scorers)
    return {BEST: found}


def _stream_prefix(
    model: RecognitionModel, opts: SearchOptions, resources: Resources
) -> StreamingCtcPrefixSearch:
    device = next(model.ctc_output.parameters()).device
    return StreamingCtcPrefixSearch(model, beam_options(opts), scorers=scorers_of(opts, resources, device))


GREEDY = Method(
    name="ctc-greedy-search",
    head=Head.CTC,
    search=_greedy,
    stream=_stream_greedy,
    uses=option_names.DISTRIBUTION,
    names=MethodNames(),
)
PREFIX = Method(
    name="ctc-prefix-beam-search",
    head=Head.CTC,
    search=_prefix,
    stream=_stream_prefix,
    nbest=True,
    optional=BIASING,
    uses=option_names.BEAM | option_names.BIASING,
    names=BeamNames(phrases=True),
)
SHALLOW_FUSION = Method(
    name="ctc-prefix-beam-search-shallow-fusion",
    head=Head.CTC,
    search=_prefix,
    nbest=True,
    optional=OPTIONAL_LMS | BIASING,
    expects_one_of=OPTIONAL_LMS,
    uses=option_names.BEAM | option_names.OPTIONAL_LMS | option_names.BIASING,
    names=BeamNames(phrases=True, models=(names.optional_lms,)),
)
METHODS = (GREEDY, PREFIX, SHALLOW_FUSION)
