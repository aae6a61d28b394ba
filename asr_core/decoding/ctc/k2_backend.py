"""The intersection of :mod:`asr_core.decoding.ctc.graph_search` with k2."""

from typing import TYPE_CHECKING, Dict, List, NamedTuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import GraphSearchOptions
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice, LatticeArcs, from_arcs

if TYPE_CHECKING:
    import k2


class _Converted(NamedTuple):
    """A graph and k2's form of it on some device."""

    graph: Fsa
    device: str
    fsa: "k2.Fsa"


_last: List[_Converted] = []  # the graph that was used last: converting a large one takes seconds


def k2_lattices(log_probs: Tensor, lens: Tensor, graph: Fsa, opts: GraphSearchOptions) -> Dict[int, Lattice]:
    """Intersect with ``k2.intersect_dense_pruned``.

    Its limits on active states are soft: the beam adapts to them from frame to frame.

    Args:
      log_probs: (N, T, V), of CTC.
      lens: (N,) int64.
      graph: over frames.
      opts: limits.

    Returns:
      The lattices by utterance. Utterances without frames are missing, and those where no path ends
      in a final state.
    """
    import k2

    rows = [i for i in lens.argsort(descending=True, stable=True).tolist() if lens[i] > 0]
    out: Dict[int, Lattice] = {}
    if not rows:
        return out
    segments = torch.tensor([[i, 0, int(lens[i])] for i in rows], dtype=torch.int32)
    found = k2.intersect_dense_pruned(
        k2_graph(graph, log_probs.device),
        k2.DenseFsaVec(log_probs.float(), segments),
        opts.search_beam,
        opts.output_beam,
        opts.min_active,
        opts.max_active,
        frame_idx_name="frame",
    )
    for place, i in enumerate(rows):
        if found[place].num_arcs > 0:
            # k2 prunes frame by frame and keeps a few arcs more
            out[i] = _lattice(found[place], int(lens[i])).pruned(opts.output_beam)
    return out


def k2_graph(graph: Fsa, device: torch.device) -> "k2.Fsa":
    """Return ``graph`` in k2's form: arcs labelled -1 lead from final states to a last one."""
    import k2

    if _last and _last[0].graph is graph and _last[0].device == str(device):
        return _last[0].fsa
    ends = np.flatnonzero(graph.final > -np.inf)
    source = np.concatenate([np.repeat(np.arange(graph.num_states), np.diff(graph.begin)), ends])
    dest = np.concatenate([graph.dest, np.full(len(ends), graph.num_states)])
    label = np.concatenate([graph.label, np.full(len(ends), -1)])
    score = np.concatenate([graph.score, graph.final[ends]]).astype(np.float32)
    source, dest = (_start_first(x, graph.start) for x in (source, dest))
    order = np.argsort(source, kind="stable")
    columns = [x.astype(np.int32)[order] for x in (source, dest, label)]
    made = k2.Fsa(torch.from_numpy(np.stack([*columns, score[order].view(np.int32)], axis=1)))
    arc = np.concatenate([np.arange(graph.num_arcs), np.full(len(ends), -1)])
    made.arc = torch.from_numpy(arc.astype(np.int32)[order])
    _last[:] = [_Converted(graph, str(device), made.to(device))]
    return _last[0].fsa


def _start_first(states: np.ndarray, start: int) -> np.ndarray:
    """Return state numbers (n,) with 0 and ``start`` exchanged: k2's initial state is the first."""
    return np.where(states == 0, start, np.where(states == start, 0, states))


def _lattice(found: "k2.Fsa", num_frames: int) -> Lattice:
    arcs = found.arcs.values().cpu().numpy()  # (A, 4): source, destination, label, score
    score, arc, frame = (x.detach().cpu().numpy() for x in (found.scores, found.arc, found.frame))
    final = np.full(found.shape[0], -np.inf)
    ends = arcs[:, 2] == -1
    final[arcs[ends, 0]] = score[ends]
    columns = LatticeArcs(
        source=arcs[:, 0].astype(np.int64),
        dest=arcs[:, 1].astype(np.int64),
        score=score.astype(np.float64),
        arc=arc,
        frame=frame,
    )
    return from_arcs(columns.at(~ends), final, num_frames)
