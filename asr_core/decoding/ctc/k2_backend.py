"""The same intersection done by k2, where it is installed."""

from typing import Any, List, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice, from_columns

_last: List[Tuple[Fsa, str, Any]] = []  # the graph that was used last, its device, and what k2 makes of it


def k2_lattices(log_probs: Tensor, lens: Tensor, graph: Fsa, opts: Any) -> List[Optional[Lattice]]:
    """What :func:`asr_core.decoding.ctc.graph_search.intersect` returns, by ``k2.intersect_dense_pruned``.

    Its limits on active states are soft: the beam adapts to them from frame to frame. There is None for an utterance without frames, and
    where no path ends in a final state.
    """
    import k2

    rows = [i for i in lens.argsort(descending=True, stable=True).tolist() if lens[i] > 0]
    out: List[Optional[Lattice]] = [None] * len(lens)
    if not rows:
        return out
    segments = torch.tensor([[i, 0, int(lens[i])] for i in rows], dtype=torch.int32)
    frames = k2.DenseFsaVec(log_probs.float(), segments)
    limits = (opts.search_beam, opts.output_beam, opts.min_active, opts.max_active)
    found = k2.intersect_dense_pruned(
        k2_graph(graph, log_probs.device), frames, *limits, frame_idx_name="frame"
    )
    for place, i in enumerate(rows):
        if found[place].num_arcs > 0:
            out[i] = _lattice(found[place], int(lens[i])).pruned(
                opts.output_beam
            )  # k2 prunes by and by and keeps a few arcs more
    return out


def k2_graph(graph: Fsa, device: torch.device) -> Any:
    """``graph`` as k2 has it: an arc labelled -1 from each final state to a last one."""
    import k2

    if _last and _last[0][0] is graph and _last[0][1] == str(device):
        return _last[0][2]
    ends = np.flatnonzero(graph.final > -np.inf)
    source = np.concatenate([np.repeat(np.arange(graph.num_states), np.diff(graph.begin)), ends])
    dest = np.concatenate([graph.dest, np.full(len(ends), graph.num_states)])
    label = np.concatenate([graph.label, np.full(len(ends), -1)])
    score = np.concatenate([graph.score, graph.final[ends]]).astype(np.float32)
    source, dest = (_start_first(x, graph.start) for x in (source, dest))
    order = np.argsort(source, kind="stable")
    columns = [x.astype(np.int32)[order] for x in (source, dest, label)]
    made = k2.Fsa(torch.from_numpy(np.stack([*columns, score[order].view(np.int32)], axis=1)))
    made.arc = torch.from_numpy(
        np.concatenate([np.arange(graph.num_arcs), np.full(len(ends), -1)]).astype(np.int32)[order]
    )
    _last[:] = [(graph, str(device), made.to(device))]
    return _last[0][2]


def _start_first(states: np.ndarray, start: int) -> np.ndarray:
    """State numbers with 0 and ``start`` exchanged: k2's initial state is the first."""
    return np.where(states == 0, start, np.where(states == start, 0, states))


def _lattice(found: Any, num_frames: int) -> Lattice:
    arcs = found.arcs.values().cpu().numpy()
    score, arc, frame = (x.detach().cpu().numpy() for x in (found.scores, found.arc, found.frame))
    final = np.full(found.shape[0], -np.inf)
    ends = arcs[:, 2] == -1
    final[arcs[ends, 0]] = score[ends]
    columns = (arcs[:, 0].astype(np.int64), arcs[:, 1].astype(np.int64), score.astype(np.float64), arc, frame)
    return from_columns(*(c[~ends] for c in columns), final=final, num_frames=num_frames)
