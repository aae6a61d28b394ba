"""Lattices of fast beam search."""

from typing import List, Sequence

import numpy as np
import torch

from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.transducer.fast_beam import FastBeamCore
from asr_core.ops import fast_beam as ops


def build_lattices(search: FastBeamCore, frontier: ops.Frontier, lens: List[int]) -> List[Lattice]:
    """Return the lattice of each utterance.

    Args:
      search: after a run in which it kept its transitions.
      frontier: the states after the last frame.
      lens: frames of each utterance, descending.
    """
    final = search.end_scores(frontier).cpu().numpy()  # (N, S)
    parts = search.transitions
    if not parts:
        parts = [ops.Transitions(*(torch.zeros(0, dtype=torch.int64) for _ in range(5)))]
    frame = np.repeat(np.arange(len(parts)), [len(t.row) for t in parts])
    return lattices_of(final, frame, ops.Transitions(*map(torch.cat, zip(*parts))), lens)


def lattices_of(
    final: np.ndarray, frame: np.ndarray, transitions: ops.Transitions, lens: Sequence[int]
) -> List[Lattice]:
    """Return the lattice of each utterance.

    Args:
      final: (N, S), scores of ending in each state after the last frame.
      frame: (L,), of each transition.
      transitions: of all frames and utterances, in any order.
      lens: frames of each utterance.
    """
    row, source, target, arc, score = (column.cpu().numpy() for column in transitions)  # (L,)
    order = np.lexsort((arc, source, frame, row))
    edges = np.searchsorted(row[order], np.arange(len(lens) + 1))
    places = final.shape[1]
    out: List[Lattice] = []
    for i, length in enumerate(lens):
        mine = order[edges[i] : edges[i + 1]]  # the transitions of utterance i, by node
        nodes = (length + 1) * places
        src = frame[mine] * places + source[mine]
        ends = np.full(nodes, -np.inf)
        ends[length * places :] = final[i]
        begin = np.concatenate([[0], np.cumsum(np.bincount(src, minlength=nodes))])
        out.append(
            Lattice(
                begin=begin.astype(np.int64),
                dest=((frame[mine] + 1) * places + target[mine]).astype(np.int64),
                score=score[mine].astype(np.float64),
                final=ends,
                arc=arc[mine].astype(np.int64),
                frame=frame[mine].astype(np.int64),
                num_frames=length,
            )
        )
    return out
