"""N-best methods of fast beam search: paths drawn from the lattice, the best of them chosen by one of three criteria."""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.fast_beam import FastBeamCore, FastBeamOptions, arcs_and_times
from asr_core.decoding.frames import pack_frames
from asr_core.decoding.fsa import Fsa
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.lattice import Lattice, build_lattices, token_of_arc
from asr_core.utils.errors import UserError

# (lattice, labels of its arcs, the sequences drawn, index of the utterance) -> the sequence chosen and its score
_Choose = Callable[[Lattice, np.ndarray, List[Tuple[int, ...]], int], Tuple[Tuple[int, ...], float]]


@torch.inference_mode()
def fast_beam_search_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: FastBeamOptions = FastBeamOptions(ilme_scale=0.1),
    graph: Optional[Fsa] = None,
    num_paths: int = 200,
    nbest_scale: float = 0.5,
) -> List[Hypothesis]:
    """Draw paths from the lattice and take the sequence whose score in the lattice is the highest.

    Without a graph these are token sequences, scored by their best path. With a graph that has words they are word sequences, and
    the probabilities of all their paths are added up.

    Args:
      model, encoder_out, encoder_out_lens, opts, graph: as for :func:`~asr_core.decoding.fast_beam.fast_beam_search`.
      num_paths: paths drawn from each lattice.
      nbest_scale: the lattice's scores are multiplied by it while drawing: the smaller, the more various the paths.
    """
    log_sum = graph is not None and graph.names is not None

    def choose(lattice: Lattice, labels: np.ndarray, sequences: List[Tuple[int, ...]], _: int) -> Tuple[Tuple[int, ...], float]:
        scores = [lattice.total_score(labels, s, log_sum) for s in sequences]
        best = int(np.argmax(scores))
        return sequences[best], scores[best]

    return _search(model, encoder_out, encoder_out_lens, opts, graph, num_paths, nbest_scale, choose)


@torch.inference_mode()
def fast_beam_search_nbest_oracle(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    references: Optional[Sequence[Sequence[int]]],
    opts: FastBeamOptions = FastBeamOptions(ilme_scale=0.1),
    num_paths: int = 200,
    nbest_scale: float = 0.5,
) -> List[Hypothesis]:
    """Draw paths from the lattice and take the one with the fewest errors: what no rescoring of these paths can beat.

    Args:
      references: token ids of each utterance's transcript.
      model, encoder_out, encoder_out_lens, opts, num_paths, nbest_scale: as for :func:`fast_beam_search_nbest`.

    Raises:
      UserError: there are no references.
    """
    if references is None:
        raise UserError("fast_beam_search_nbest_oracle needs the transcripts, which only decode.py has")

    from kaldialign import edit_distance

    def choose(lattice: Lattice, labels: np.ndarray, sequences: List[Tuple[int, ...]], i: int) -> Tuple[Tuple[int, ...], float]:
        distances = [edit_distance(list(references[i]), list(s))["total"] for s in sequences]
        scores = [lattice.total_score(labels, s, False) if d == min(distances) else -np.inf for s, d in zip(sequences, distances)]
        best = int(np.argmax(scores))
        return sequences[best], scores[best]

    return _search(model, encoder_out, encoder_out_lens, opts, None, num_paths, nbest_scale, choose)


def _search(
    model: Any,
    encoder_out: Tensor,
    lens: Tensor,
    opts: FastBeamOptions,
    graph: Optional[Fsa],
    num_paths: int,
    scale: float,
    choose: _Choose,
) -> List[Hypothesis]:
    search = FastBeamCore(model, opts, graph)
    packed = pack_frames(encoder_out, lens)
    frontier, trace = search.run(packed.frames, search.start(encoder_out.size(0)), all_transitions=True)
    order = packed.order.tolist()
    lattices = build_lattices(search, frontier, trace, lens.to(packed.order.device)[packed.order].tolist())
    labels_of = graph.output if graph is not None and graph.names is not None else token_of_arc(search, graph)
    out: List[Hypothesis] = [Hypothesis([], [], 0.0, None if graph is None or graph.names is None else [])] * len(order)
    for lattice, i in zip(lattices, order):
        labels = lattice.labels(labels_of)
        sequences = lattice.sequences(lattice.random_paths(num_paths, scale), labels)
        if sequences:
            sequence, score = choose(lattice, labels, sequences, i)
            path, _ = lattice.best_path(labels, sequence)
            out[i] = search.hypothesis(*arcs_and_times(torch.from_numpy(lattice.arc[path])), score)
    return out
