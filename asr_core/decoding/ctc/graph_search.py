"""CTC with a decoding graph: posteriors are intersected with it, which gives a lattice."""

from concurrent.futures import ThreadPoolExecutor
from typing import List, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice, from_columns
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.ops.cpu import ctc_graph as kernels
from asr_core.utils.errors import UserError

_BLANK = 0  # of the CTC loss


class GraphSearchOptions(NamedTuple):
    """Limits of the search over a graph.

    Attributes:
      search_beam: of the graph's states at a frame those go on that are not worse than the best by more (natural log-probability).
      output_beam: of the arcs those are kept in the lattice whose best path is not worse than the best path by more.
      min_active: so many states go on at least, however bad.
      max_active: at most.
      backend: "own", "k2", or "auto": k2 where it is installed and the model is on a GPU.
    """

    search_beam: float = 20.0
    output_beam: float = 8.0
    min_active: int = 30
    max_active: int = 10000
    backend: str = "auto"


@torch.inference_mode()
def intersect(
    log_probs: Tensor, lens: Tensor, graph: Fsa, opts: GraphSearchOptions = GraphSearchOptions()
) -> List[Lattice]:
    """The lattice of each utterance.

    Args:
      log_probs: (N, T, V), of CTC.
      lens: (N,) int64.
      graph: of :func:`~asr_core.decoding.graph.ctc_topology.ctc_topology` or :func:`~asr_core.decoding.graph.ctc_topology.search_graph`.
      opts: limits.

    Raises:
      UserError: the graph has tokens that the model lacks, or k2 is wanted and not installed.
    """
    most = int(graph.label.max(initial=-1))
    if most >= log_probs.size(2):
        raise UserError(
            f"the graph has the token {most}, but the model has {log_probs.size(2)}: it was made for another one"
        )
    if _use_k2(opts.backend, log_probs.device.type):
        from asr_core.decoding.ctc.k2_backend import k2_lattices

        found: List[Optional[Lattice]] = k2_lattices(log_probs, lens, graph, opts)
    else:
        found = [None] * len(lens)
    missing = [i for i, lattice in enumerate(found) if lattice is None]
    rows = log_probs[missing].float().cpu().numpy()
    tasks = [np.ascontiguousarray(row[:length]) for row, length in zip(rows, lens[missing].tolist())]
    if len(tasks) == 1:
        own = [_intersect_one(tasks[0], graph, opts)]
    else:
        with ThreadPoolExecutor(
            max(1, min(torch.get_num_threads(), len(tasks)))
        ) as pool:  # the kernels let go of the interpreter
            own = list(pool.map(lambda x: _intersect_one(x, graph, opts), tasks))
    for i, lattice in zip(missing, own):
        found[i] = lattice
    return found


def _use_k2(backend: str, device: str) -> bool:
    if backend == "own" or (backend == "auto" and device != "cuda"):
        return False
    try:
        import k2  # noqa: F401
    except ImportError as e:
        if backend == "k2":
            raise UserError("--graph-backend k2: k2 is not installed; own needs nothing") from e
        return False
    return True


def _intersect_one(log_probs: np.ndarray, graph: Fsa, opts: GraphSearchOptions) -> Lattice:
    """The lattice of one utterance (T, V); it has no path where the graph accepts nothing of so many frames."""
    arcs = (graph.begin, graph.label, graph.dest, graph.score)
    states, alphas, first = kernels.forward(
        log_probs, *arcs, graph.start, opts.search_beam, opts.min_active, opts.max_active
    )
    num_frames = len(log_probs)
    ends = np.full(len(states), -np.inf)
    last = first[num_frames]
    if last == len(states):
        return from_columns(*np.zeros((5, 0), np.int64), final=ends[:1], num_frames=num_frames)
    ends[last:] = end_scores(graph, states[last:])
    source, dest, arc, score = kernels.lattice_arcs(
        log_probs, *arcs, states, alphas, first, ends[last:], opts.output_beam
    )
    whole = alphas[last:] + ends[last:]
    ends[last:][whole < whole.max() - opts.output_beam - kernels.SLACK] = -np.inf
    frame = np.searchsorted(first, source, side="right") - 1
    return from_columns(source, dest, score, arc, frame, ends, num_frames)


def end_scores(graph: Fsa, states: np.ndarray) -> np.ndarray:
    """What ending in each of ``states`` (n,) scores, float64; where none of them is final, ending is free in all."""
    final = graph.final[states].astype(np.float64)
    return final if (final > -np.inf).any() else np.zeros(len(states))


def path_hypothesis(graph: Fsa, lattice: Lattice, path: np.ndarray, score: float) -> Hypothesis:
    """What a path (T,) of a lattice says: the tokens of its labels without repeats and blanks, and its words where the graph has words."""
    arcs = lattice.arc[path]
    label = graph.label[arcs]
    frames = (
        np.flatnonzero((label != _BLANK) & (label != np.concatenate([[_BLANK], label[:-1]])))
        if len(label)
        else np.zeros(0, np.int64)
    )
    return Hypothesis(label[frames].tolist(), frames.tolist(), score, graph.words(arcs))


def no_hypothesis(graph: Fsa) -> Hypothesis:
    """What is said of an utterance whose lattice has no path."""
    return Hypothesis([], [], 0.0, None if graph.names is None else [])
