"""Decoding methods that search a graph with the CTC head, and rescore what they find."""

from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch

from asr_core.decoding.beam_options import GraphSearchOptions
from asr_core.decoding.ctc.graph_search import intersect, no_hypothesis, path_hypothesis
from asr_core.decoding.ctc.greedy import ctc_log_probs
from asr_core.decoding.ctc.nbest import attention_scores, draw, hypotheses_of
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.graph.ctc_topology import ctc_topology
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.graph.word_lm import WordLm, with_language_model, without_graph_scores
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.methods.beam import beam_options
from asr_core.decoding.options import SearchOptions
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from asr_core.decoding.registry import Job

LM_SCALES = tuple(round(0.1 * i, 1) for i in range(1, 21))
ATTENTION_SCALES = (
    0.01, 0.05, 0.08, 0.1, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 1.9, 2.0, 2.1, 2.2, 2.3, 2.5, 3.0, 4.0, 5.0,
)  # fmt: skip
MORE_ATTENTION_SCALES = (*ATTENTION_SCALES, 6.0, 7.0, 8.0, 9.0)
_Results = Dict[str, List[Hypothesis]]


class _Found(NamedTuple):
    """The lattices of a batch and the graph that was searched."""

    lattices: List[Lattice]
    graph: Fsa


def graph_options(opts: SearchOptions) -> GraphSearchOptions:
    """The limits of a search over a graph."""
    limits = (opts.search_beam, opts.output_beam, opts.min_active_states, opts.max_active_states)
    return GraphSearchOptions(*limits, backend=opts.graph_backend)


@torch.inference_mode()
def _search(job: "Job") -> _Found:
    """Intersect with HLG, or with CTC's topology where the method has no HLG."""
    log_probs = ctc_log_probs(job.model, job.encoder_out, job.opts)
    graph = job.resources.hlg if job.resources.hlg is not None else ctc_topology(log_probs.size(2))
    return _Found(intersect(log_probs, job.lens, graph, graph_options(job.opts)), graph)


def one_best(job: "Job") -> _Results:
    """What the best path of each lattice says."""
    found = _search(job)
    return {"": [_best(lattice, found.graph) for lattice in found.lattices]}


def _best(lattice: Lattice, graph: Fsa) -> Hypothesis:
    path, score = lattice.shortest_path()
    return no_hypothesis(graph) if score == -np.inf else path_hypothesis(graph, lattice, path, score)


def nbest_lists(job: "Job") -> List[List[Hypothesis]]:
    """The different hypotheses among the best path and the paths drawn, the best first."""
    found, o = _search(job), job.opts
    return [
        hypotheses_of(draw(x, found.graph, o.num_paths, o.nbest_scale), x, found.graph)
        for x in found.lattices
    ]


def nbest(job: "Job") -> _Results:
    """The first of each list."""
    return {"": [hypotheses[0] for hypotheses in nbest_lists(job)]}


def nbest_oracle(job: "Job") -> _Results:
    """Of the hypotheses drawn those with the fewest errors: what no rescoring of them can beat.

    Raises:
      UserError: there are no references.
    """
    return {"": [hypotheses[0] for hypotheses in oracle_lists(job)]}


def oracle_lists(job: "Job") -> List[List[Hypothesis]]:
    """The hypotheses drawn, those with the fewest errors first; raises as :func:`nbest_oracle`."""
    if job.references is None:
        raise UserError(f"{job.opts.decoding_method} needs the transcripts, which only decode.py has")

    from kaldialign import edit_distance

    def errors(reference: Sequence[str], hypothesis: Hypothesis) -> int:
        return edit_distance(list(reference), hypothesis.words)["total"]

    return [
        sorted(hyps, key=lambda h: errors(reference, h))
        for reference, hyps in zip(job.references, nbest_lists(job))
    ]


def nbest_rescoring(job: "Job") -> _Results:
    """The hypotheses drawn, with the word n-gram's scores in place of the graph's: am / scale + lm."""
    found, o, lm = _search(job), job.opts, _word_lm(job)
    scored = []
    for lattice in found.lattices:
        candidates = draw(lattice, found.graph, o.num_paths, o.nbest_scale)
        acoustic = without_graph_scores(lattice, found.graph).score
        am = np.array([acoustic[c.path].sum() for c in candidates])
        scores = np.array([lm.sentence(c.labels) for c in candidates])
        scored.append((hypotheses_of(candidates, lattice, found.graph), am, scores))
    return _choose(scored, ((f"lm_scale_{s}", lambda am, score, s=s: am / s + score) for s in LM_SCALES))


def whole_lattice_rescoring(job: "Job") -> _Results:
    """The best path of each lattice with the word n-gram's scores in place of the graph's: am / scale + lm."""
    found, lm = _search(job), _word_lm(job)
    split = [with_language_model(lattice, found.graph, lm) for lattice in found.lattices]
    return {f"lm_scale_{s}": [_best(x.weighted(1 / s, 1.0), found.graph) for x in split] for s in LM_SCALES}


def attention_rescoring(job: "Job") -> _Results:
    """Token sequences drawn from the lattice of CTC alone, rescored by the attention decoder: am + scale * attention."""
    return _attention(job, nbest_lists(job))


def prefix_attention_rescoring(job: "Job") -> _Results:
    """The hypotheses of prefix beam search rescored by the attention decoder: am + scale * attention."""
    found = ctc_prefix_beam_search(job.model, job.encoder_out, job.lens, beam_options(job.opts))
    return _attention(job, found)


def _attention(job: "Job", lists: List[List[Hypothesis]]) -> _Results:
    scores = attention_scores(job.model, job.encoder_out, job.lens, lists)
    scored = [
        (hyps, np.array([h.log_prob for h in hyps]), attention) for hyps, attention in zip(lists, scores)
    ]
    return _choose(
        scored,
        ((f"attention_scale_{s}", lambda am, score, s=s: am + s * score) for s in MORE_ATTENTION_SCALES),
    )


def attention_rescoring_with_ngram(job: "Job") -> _Results:
    """Word sequences drawn from the lattice with the word n-gram's scores: am + n * n-gram + a * attention."""
    found, o, lm = _search(job), job.opts, _word_lm(job)
    lists, parts = [], []
    for lattice in found.lattices:
        split = with_language_model(lattice, found.graph, lm)
        whole = split.weighted(1.0, 1.0)
        candidates = draw(whole, found.graph, o.num_paths, o.nbest_scale)
        am = np.array([split.lattice.score[c.path].sum() for c in candidates] or [0.0])
        ngram = np.array([c.score for c in candidates] or [0.0]) - am
        lists.append(hypotheses_of(candidates, whole, found.graph))
        parts.append((am, ngram))
    attention = attention_scores(job.model, job.encoder_out, job.lens, lists)
    scored = [(hyps, *part, scores) for hyps, part, scores in zip(lists, parts, attention)]
    return _choose(scored, (_two_weights(n, a) for n in ATTENTION_SCALES for a in ATTENTION_SCALES))


def _two_weights(n: float, a: float) -> Tuple[str, Callable[..., np.ndarray]]:
    return (
        f"ngram_lm_scale_{n}_attention_scale_{a}",
        lambda am, ngram, attention: am + n * ngram + a * attention,
    )


def _choose(scored: Sequence[tuple], weights: Iterable[Tuple[str, Callable[..., np.ndarray]]]) -> _Results:
    """The best hypotheses under several weights, by the names of these; ``log_prob`` becomes the total that chose them.

    Args:
      scored: (hypotheses, scores, scores, ...) of each utterance.
      weights: names, and what makes totals of the scores.
    """
    return {
        name: [_highest(hypotheses, total(*parts)) for hypotheses, *parts in scored]
        for name, total in weights
    }


def _highest(hypotheses: List[Hypothesis], totals: np.ndarray) -> Hypothesis:
    if not len(totals):
        return hypotheses[0]
    best = int(np.argmax(totals))
    return hypotheses[best]._replace(log_prob=float(totals[best]))


def _word_lm(job: "Job") -> WordLm:
    lm: Optional[WordLm] = job.resources.word_lm
    assert lm is not None, "the registry says that this method needs one"
    return lm
