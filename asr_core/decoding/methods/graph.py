"""Methods that search a graph with the CTC head, and rescore the results.

A rescoring method adds the scores of other models to the acoustic scores (am) of a lattice's paths.
As the best weights of these models are not known, it has one result for each of several weights.
"""

from dataclasses import dataclass
from typing import Callable, FrozenSet, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import torch

from asr_core.decoding.beam_options import GraphSearchOptions
from asr_core.decoding.ctc.graph_search import intersect, no_hypothesis, path_hypothesis
from asr_core.decoding.ctc.greedy import ctc_log_probs
from asr_core.decoding.ctc.nbest import attention_scores, draw, hypotheses_of
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.device import choice
from asr_core.decoding.graph.ctc_topology import ctc_topology
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.graph.word_lm import WordLm, with_language_model, without_graph_scores
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.method import BEST, Head, Job, Method, NBestLists, Results, Unit, of_answers
from asr_core.decoding.methods import option_names
from asr_core.decoding.methods.names import BeamNames, GraphNames
from asr_core.decoding.methods.scoring import beam_options
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.resources import Resource
from asr_core.utils.errors import UserError

# The weights that icefall tries
LM_SCALES = tuple(round(0.1 * i, 1) for i in range(1, 21))
ATTENTION_SCALES = (
    0.01, 0.05, 0.08, 0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0, 1.1, 1.2,
    1.3, 1.5, 1.7, 1.9, 2.0, 2.1, 2.2, 2.3, 2.5, 3.0, 4.0, 5.0,
)  # fmt: skip
MORE_ATTENTION_SCALES = (*ATTENTION_SCALES, 6.0, 7.0, 8.0, 9.0)


@dataclass(frozen=True)
class _Found:
    """The lattices of a batch and the graph that was searched."""

    lattices: List[Lattice]
    graph: Fsa


@dataclass(frozen=True)
class _Scored:
    """The candidates of an utterance.

    Attributes:
      hypotheses: M different hypotheses.
      scores: arrays (M,), one for each model; empty where the lattice has no path.
    """

    hypotheses: List[Hypothesis]
    scores: Tuple[np.ndarray, ...]


# Makes one total (M,) of the scores (M,) of each model
_Total = Callable[..., np.ndarray]


def graph_options(opts: SearchOptions) -> GraphSearchOptions:
    """Return the limits of a search over a graph."""
    return GraphSearchOptions(
        search_beam=opts.search_beam,
        output_beam=opts.output_beam,
        min_active=opts.min_active_states,
        max_active=opts.max_active_states,
        backend=opts.graph_backend,
    )


@torch.inference_mode()
def _lattices(job: Job) -> _Found:
    """Intersect with HLG, or with CTC's topology where the method has no HLG."""
    log_probs = ctc_log_probs(job.model, job.encoder_out, job.opts)
    graph = job.resources.hlg if job.resources.hlg is not None else ctc_topology(log_probs.size(2))
    return _Found(intersect(log_probs, job.lens, graph, graph_options(job.opts)), graph)


def _one_best(job: Job) -> Results:
    """Read the best path of each lattice; further hypotheses are drawn only if they are wanted."""
    if job.num_best > 1:
        return _nbest(job)
    found = _lattices(job)
    return of_answers([_best_path(lattice, found.graph) for lattice in found.lattices])


def _best_path(lattice: Lattice, graph: Fsa) -> Hypothesis:
    path, score = lattice.shortest_path()
    return no_hypothesis(graph) if score == -np.inf else path_hypothesis(graph, lattice, path, score)


def _drawn(job: Job) -> NBestLists:
    """Return the different hypotheses among the best path and the paths drawn, the best first."""
    found, opts = _lattices(job), job.opts
    return [
        hypotheses_of(draw(lattice, found.graph, opts.num_paths, opts.nbest_scale), lattice, found.graph)
        for lattice in found.lattices
    ]


def _nbest(job: Job) -> Results:
    return {BEST: [hypotheses[: job.num_best] for hypotheses in _drawn(job)]}


def _oracle(job: Job) -> Results:
    """Sort the hypotheses drawn by their errors: no rescoring of them can beat the first.

    Raises:
      UserError: there are no references.
    """
    if job.references is None:
        raise UserError(f"{job.opts.decoding_method} needs the transcripts, which only decode.py has")

    from kaldialign import edit_distance

    def errors(reference: Sequence[str], hypothesis: Hypothesis) -> int:
        return edit_distance(list(reference), hypothesis.words)["total"]

    lists = [
        sorted(hypotheses, key=lambda hypothesis: errors(reference, hypothesis))
        for reference, hypotheses in zip(job.references.words, _drawn(job))
    ]
    return {BEST: [hypotheses[: job.num_best] for hypotheses in lists]}


def _nbest_rescoring(job: Job) -> Results:
    """Rescore hypotheses with the word n-gram instead of the graph: am / scale + lm."""
    found, opts, lm = _lattices(job), job.opts, _word_lm(job)
    scored = []
    for lattice in found.lattices:
        candidates = draw(lattice, found.graph, opts.num_paths, opts.nbest_scale)
        acoustic = without_graph_scores(lattice, found.graph).score
        am = np.array([acoustic[c.path].sum() for c in candidates])
        scores = np.array([lm.sentence(c.labels) for c in candidates])
        scored.append(_Scored(hypotheses_of(candidates, lattice, found.graph), (am, scores)))
    return _choose(scored, ((f"lm_scale_{s}", lambda am, score, s=s: am / s + score) for s in LM_SCALES))


def _whole_lattice_rescoring(job: Job) -> Results:
    """Rescore all paths of lattices with the word n-gram instead of the graph: am / scale + lm."""
    found, lm = _lattices(job), _word_lm(job)
    split = [with_language_model(lattice, found.graph, lm) for lattice in found.lattices]
    results: Results = {}
    for scale in LM_SCALES:
        lattices = (scores.weighted(1 / scale, 1.0) for scores in split)
        results[f"lm_scale_{scale}"] = [[_best_path(lattice, found.graph)] for lattice in lattices]
    return results


def _attention_rescoring(job: Job) -> Results:
    """Rescore paths of CTC's lattices with the attention decoder: am + scale * attention."""
    return _with_attention(job, _drawn(job))


def _prefix_attention_rescoring(job: Job) -> Results:
    """Rescore prefix beam search with the attention decoder: am + scale * attention."""
    opts = beam_options(job.opts)
    lists = choice.ctc_prefix_on_device(job, opts)
    if lists is None:
        lists = ctc_prefix_beam_search(job.model, job.encoder_out, job.lens, opts)
    return _with_attention(job, lists)


def _with_attention(job: Job, lists: NBestLists) -> Results:
    scores = attention_scores(job.model, job.encoder_out, job.lens, lists)
    scored = [
        _Scored(hypotheses, (np.array([h.log_prob for h in hypotheses]), attention))
        for hypotheses, attention in zip(lists, scores)
    ]
    return _choose(
        scored,
        ((f"attention_scale_{s}", lambda am, score, s=s: am + s * score) for s in MORE_ATTENTION_SCALES),
    )


def _attention_rescoring_with_ngram(job: Job) -> Results:
    """Rescore with the word n-gram and the attention decoder: am + n * n-gram + a * attention."""
    found, opts, lm = _lattices(job), job.opts, _word_lm(job)
    lists: NBestLists = []
    parts: List[Tuple[np.ndarray, np.ndarray]] = []
    for lattice in found.lattices:
        split = with_language_model(lattice, found.graph, lm)
        whole = split.weighted(1.0, 1.0)
        candidates = draw(whole, found.graph, opts.num_paths, opts.nbest_scale)
        # a lattice without paths gives one empty hypothesis, whose scores are 0
        am = np.array([split.lattice.score[c.path].sum() for c in candidates] or [0.0])
        ngram = np.array([c.score for c in candidates] or [0.0]) - am
        lists.append(hypotheses_of(candidates, whole, found.graph))
        parts.append((am, ngram))
    attention = attention_scores(job.model, job.encoder_out, job.lens, lists)
    scored = [
        _Scored(hypotheses, (*part, scores)) for hypotheses, part, scores in zip(lists, parts, attention)
    ]
    return _choose(scored, (_two_weights(n, a) for n in ATTENTION_SCALES for a in ATTENTION_SCALES))


def _two_weights(n: float, a: float) -> Tuple[str, _Total]:
    return (
        f"ngram_lm_scale_{n}_attention_scale_{a}",
        lambda am, ngram, attention: am + n * ngram + a * attention,
    )


def _choose(scored: Sequence[_Scored], weights: Iterable[Tuple[str, _Total]]) -> Results:
    """Return the best hypotheses under each of several weights.

    Their ``log_prob`` becomes the total that chose them.

    Args:
      scored: the candidates of each utterance.
      weights: the results' names, and what makes totals of scores.
    """
    return {name: [[_highest(candidates, total)] for candidates in scored] for name, total in weights}


def _highest(candidates: _Scored, total: _Total) -> Hypothesis:
    totals = total(*candidates.scores)
    if not len(totals):
        return candidates.hypotheses[0]
    best = int(np.argmax(totals))
    return candidates.hypotheses[best]._replace(log_prob=float(totals[best]))


def _word_lm(job: Job) -> WordLm:
    lm = job.resources.word_lm
    assert lm is not None, "the method declares that it needs one"
    return lm


_LEXICON = frozenset({Resource.HLG})
_WORD_LM = frozenset({Resource.HLG, Resource.WORD_LM})


def _graph_method(
    name: str,
    search: Callable[[Job], Results],
    *,
    needs: FrozenSet[Resource] = frozenset(),
    samples: bool = False,
    nbest: bool = False,
    references: Optional[Unit] = None,
    attention_decoder: bool = False,
) -> Method:
    """Declare a method that searches a graph; its options and file names follow from its needs.

    Args:
      samples: whether paths are drawn from the lattices.
      name, search, needs, nbest, references, attention_decoder: see :class:`Method`.
    """
    lexicon = Resource.HLG in needs
    uses = option_names.HLG if lexicon else option_names.LATTICE
    return Method(
        name=name,
        head=Head.CTC,
        search=search,
        needs=needs,
        uses=uses | {"lm_dir"} if Resource.WORD_LM in needs else uses,
        names=GraphNames(lexicon=lexicon, samples=samples),
        nbest=nbest,
        references=references,
        attention_decoder=attention_decoder,
    )


CTC_DECODING = _graph_method("ctc-decoding", _one_best, nbest=True)
ONE_BEST = _graph_method("1best", _one_best, needs=_LEXICON, nbest=True)
NBEST = _graph_method("nbest", _nbest, needs=_LEXICON, samples=True, nbest=True)
NBEST_ORACLE = _graph_method(
    "nbest-oracle", _oracle, needs=_LEXICON, samples=True, nbest=True, references=Unit.WORDS
)
NBEST_RESCORING = _graph_method("nbest-rescoring", _nbest_rescoring, needs=_WORD_LM, samples=True)
WHOLE_LATTICE_RESCORING = _graph_method("whole-lattice-rescoring", _whole_lattice_rescoring, needs=_WORD_LM)
ATTENTION_RESCORING = _graph_method(
    "attention-decoder-rescoring-no-ngram", _attention_rescoring, samples=True, attention_decoder=True
)
ATTENTION_RESCORING_WITH_NGRAM = _graph_method(
    "attention-decoder-rescoring-with-ngram",
    _attention_rescoring_with_ngram,
    needs=_WORD_LM,
    samples=True,
    attention_decoder=True,
)
PREFIX_ATTENTION_RESCORING = Method(
    name="ctc-prefix-beam-search-attention-decoder-rescoring",
    head=Head.CTC,
    search=_prefix_attention_rescoring,
    attention_decoder=True,
    uses=option_names.BEAM,
    names=BeamNames(),
)
METHODS = (
    CTC_DECODING,
    ONE_BEST,
    NBEST,
    NBEST_ORACLE,
    NBEST_RESCORING,
    WHOLE_LATTICE_RESCORING,
    ATTENTION_RESCORING,
    ATTENTION_RESCORING_WITH_NGRAM,
    PREFIX_ATTENTION_RESCORING,
)
