"""CTC with a decoding graph: intersecting the posteriors with the graph gives a lattice."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, List, Optional

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import GraphSearchOptions
from asr_core.decoding.ctc.greedy import BLANK
from asr_core.decoding.ctc.k2_backend import k2_lattices
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice, LatticeArcs, from_arcs
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.ops.cpu import ctc_graph as kernels
from asr_core.utils.device import to_host
from asr_core.utils.errors import UserError


@torch.inference_mode()
def intersect(
    log_probs: Tensor, lens: Tensor, graph: Fsa, opts: GraphSearchOptions = GraphSearchOptions()
) -> List[Lattice]:
    """Return the lattice of each utterance.

    Args:
      log_probs: (N, T, V), of CTC.
      lens: (N,) int64.
      graph: from :func:`~asr_core.decoding.graph.ctc_topology.ctc_topology` or
        :func:`~asr_core.decoding.graph.ctc_topology.search_graph`.
      opts: limits.

    Raises:
      UserError: the graph has tokens that the model lacks, or k2 is wanted and not installed.
    """
    most = int(graph.label.max(initial=-1))
    if most >= log_probs.size(2):
        raise UserError(
            f"the graph has the token {most}, but the model has {log_probs.size(2)}: "
            "it was made for another model"
        )
    found: Dict[int, Lattice] = {}
    if _use_k2(opts.backend, log_probs.device.type):
        found = k2_lattices(log_probs, lens, graph, opts)
    missing = [i for i in range(len(lens)) if i not in found]
    rows = to_host(log_probs[missing].float()).numpy()  # (n, T, V)
    tasks = [np.ascontiguousarray(row[:length]) for row, length in zip(rows, lens[missing].tolist())]
    found.update(zip(missing, _intersect_all(tasks, graph, opts)))
    return [found[i] for i in range(len(lens))]


def _use_k2(backend: str, device: str) -> bool:
    if backend == "own" or (backend == "auto" and device != "cuda"):
        return False
    installed = importlib.util.find_spec("k2") is not None
    if backend == "k2" and not installed:
        raise UserError("--graph-backend k2: k2 is not installed; own needs nothing")
    return installed


def _intersect_all(tasks: List[np.ndarray], graph: Fsa, opts: GraphSearchOptions) -> List[Lattice]:
    """Return the lattices of log-probabilities (T, V), utterances shared out among threads."""
    if len(tasks) == 1:
        return [_intersect_one(tasks[0], graph, opts)]
    workers = max(1, min(torch.get_num_threads(), len(tasks)))
    with ThreadPoolExecutor(workers) as pool:  # the kernels let go of the interpreter
        return list(pool.map(lambda x: _intersect_one(x, graph, opts), tasks))


def _intersect_one(log_probs: np.ndarray, graph: Fsa, opts: GraphSearchOptions) -> Lattice:
    """Return the lattice of one utterance (T, V).

    It has no path where the graph accepts nothing of that length.
    """
    arcs = kernels.Graph(graph.begin, graph.label, graph.dest, graph.score)
    states, alphas, first = kernels.forward(
        log_probs, arcs, graph.start, opts.search_beam, opts.min_active, opts.max_active
    )  # (M,), (M,), (T + 2,)
    num_frames = len(log_probs)
    ends = np.full(len(states), -np.inf)
    last = first[num_frames]
    if last == len(states):
        nothing = np.zeros(0, np.int64)
        return from_arcs(LatticeArcs(nothing, nothing, nothing, nothing, nothing), ends[:1], num_frames)
    ends[last:] = end_scores(graph, states[last:])
    source, dest, arc, score = kernels.lattice_arcs(
        log_probs, arcs, states, alphas, first, ends[last:], opts.output_beam
    )  # (A,)
    whole = alphas[last:] + ends[last:]
    ends[last:][whole < whole.max() - opts.output_beam - kernels.SLACK] = -np.inf
    frame = np.searchsorted(first, source, side="right") - 1
    return from_arcs(LatticeArcs(source, dest, score, arc, frame), ends, num_frames)


def end_scores(graph: Fsa, states: np.ndarray) -> np.ndarray:
    """Return the scores of ending in each of ``states`` (M,), float64.

    Where none of them is final, ending is free in all.
    """
    final = graph.final[states].astype(np.float64)
    return final if (final > -np.inf).any() else np.zeros(len(states))


def path_hypothesis(graph: Fsa, lattice: Lattice, path: np.ndarray, score: float) -> Hypothesis:
    """Return a path (T,) of a lattice as a hypothesis.

    Its tokens are the labels without repeats and blanks; it has words where the graph has words.
    """
    arcs = lattice.arc[path]
    label = graph.label[arcs]
    before = np.concatenate([[BLANK], label])[: len(label)]
    frames = np.flatnonzero((label != BLANK) & (label != before))
    return Hypothesis(label[frames].tolist(), frames.tolist(), score, graph.words(arcs))


def no_hypothesis(graph: Fsa) -> Hypothesis:
    """Return the empty hypothesis of an utterance whose lattice has no path."""
    words: Optional[List[str]] = None if graph.names is None else []
    return Hypothesis([], [], 0.0, words)
