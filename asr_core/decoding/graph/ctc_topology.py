"""Graphs for CTC, which read one label a frame, blank (0) or a token.

The simplest is the topology of CTC itself, which accepts every sequence; HLG, composed of the
topology, a lexicon and a grammar, accepts the words of the lexicon. In files, and wherever 0 has to
stand for "no label", their labels are tokens plus one.
"""

import dataclasses
import functools

import numpy as np

from asr_core.decoding.graph.epsilon_removal import remove_epsilons
from asr_core.decoding.graph.fsa import Fsa, FsaArcs


def topology_arcs(num_tokens: int, modified: bool = False) -> Fsa:
    """Return the topology of CTC as a transducer from frames to tokens.

    Labels of frames are tokens plus one; the blank's is 1. The standard topology asks for a blank
    between two equal tokens and has an arc for each pair of tokens. The modified one does not, and
    has four for each token (k2's ``ctc_topo(modified=True)``), so graphs composed with it are
    smaller.

    Args:
      num_tokens: V, the blank included.
      modified: which of the two.
    """
    tokens = np.arange(1, num_tokens)  # (V - 1,)
    if modified:
        zeros = np.zeros_like(tokens)
        source = np.concatenate([[0], zeros, zeros, tokens, tokens])
        dest = np.concatenate([[0], zeros, tokens, tokens, zeros])
        label = np.concatenate([[0], tokens, tokens, tokens, tokens])
        output = np.concatenate([[0], tokens, tokens, zeros, zeros])
        final = {0: 0.0}
    else:
        states = np.arange(num_tokens)
        source, dest = (x.reshape(-1) for x in np.meshgrid(states, states, indexing="ij"))  # (V * V,)
        label, output = dest, np.where(source == dest, 0, dest)
        final = {int(state): 0.0 for state in range(num_tokens)}
    score = np.zeros(len(source), np.float32)
    return Fsa.from_arcs(FsaArcs(source, dest, label + 1, output, score), final)


@functools.lru_cache(maxsize=4)
def ctc_topology(num_tokens: int) -> Fsa:
    """Return the standard topology as a graph to search: it reads frames and writes tokens."""
    return _of_frames(topology_arcs(num_tokens))


def search_graph(graph: Fsa) -> Fsa:
    """Return a graph from disk in the form that the search takes.

    Args:
      graph: its labels are tokens plus one, its output labels have names.

    Raises:
      UserError: arcs that read no frame form a cycle.
    """
    return _of_frames(remove_epsilons(graph))


def _of_frames(graph: Fsa) -> Fsa:
    return dataclasses.replace(graph, label=graph.label - 1)
