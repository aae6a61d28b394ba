"""Hypotheses drawn from a lattice, and scored by an attention decoder."""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.ctc.graph_search import no_hypothesis, path_hypothesis
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import single
from asr_core.decoding.protocol import AttentionModel

_MOST_FRAMES = 100_000  # hypotheses times frames that the attention decoder takes at once


class Candidate(NamedTuple):
    """A sequence of output labels, and the best path of the lattice that reads it.

    Attributes:
      labels: output labels of the graph: words, or tokens.
      path: (T,) arcs of the lattice.
      score: score of the path.
    """

    labels: Tuple[int, ...]
    path: np.ndarray
    score: float


def draw(lattice: Lattice, graph: Fsa, num_paths: int, scale: float) -> List[Candidate]:
    """Return the different label sequences of the best path and of drawn paths, the best first.

    Args:
      lattice: lattice of a search over ``graph``; there are no sequences if it has no path.
      graph: its output labels distinguish sequences.
      num_paths: paths drawn.
      scale: the lattice's scores are multiplied by it while drawing.
    """
    labels = lattice.labels(graph.output)  # (A,)
    best, score = lattice.shortest_path()
    if score == -np.inf:
        return []
    drawn = lattice.random_paths(num_paths, scale)  # (P, T)
    sequences = lattice.sequences(np.concatenate([best[None], drawn]), labels)
    found: List[Candidate] = []
    for sequence in sequences:
        path, score = lattice.best_path(labels, sequence)
        found.append(Candidate(sequence, path, score))
    return sorted(found, key=lambda c: -c.score)


def hypotheses_of(candidates: Sequence[Candidate], lattice: Lattice, graph: Fsa) -> List[Hypothesis]:
    """Return the candidates as hypotheses; an empty hypothesis if there are no candidates."""
    return [path_hypothesis(graph, lattice, c.path, c.score) for c in candidates] or [no_hypothesis(graph)]


@torch.inference_mode()
def attention_scores(
    model: AttentionModel, encoder_out: Tensor, lens: Tensor, nbest: Sequence[Sequence[Hypothesis]]
) -> List[np.ndarray]:
    """Return the log-probabilities of hypotheses, ends included, by the attention decoder.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      lens: (N,) int64; the hypotheses of an utterance without frames have the score 0.
      nbest: N lists.

    Returns:
      An array for each utterance, one score for each hypothesis.
    """
    out = []
    for i, hypotheses in enumerate(nbest):
        length = int(lens[i])
        scores = torch.zeros(len(hypotheses), dtype=torch.float64)
        step = max(1, _MOST_FRAMES // max(length, 1))
        for begin in range(0, len(hypotheses) if length else 0, step):
            tokens = [list(h.tokens) for h in hypotheses[begin : begin + step]]
            frames = single(encoder_out[i : i + 1, :length]).expand(len(tokens), -1, -1)  # (n, T, C)
            frame_lens = torch.full((len(tokens),), length, device=frames.device)
            nll = model.attention_decoder.nll(frames, frame_lens, tokens)  # (n, U)
            scores[begin : begin + step] = -nll.sum(dim=1).double().cpu()
        out.append(scores.numpy())
    return out
