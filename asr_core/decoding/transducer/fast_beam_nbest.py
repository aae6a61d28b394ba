"""N-best methods of fast beam search: paths drawn from the lattice, the best of them chosen by one of three criteria."""

from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice, build_lattices, token_of_arc
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.transducer.fast_beam import FastBeamCore, FastBeamOptions, arcs_and_times
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.utils.errors import UserError

# (lattice, labels of its arcs, the sequences drawn, index of the utterance) -> the sequences in order of merit, and their scores
_Rank = Callable[[Lattice, np.ndarray, List[Tuple[int, ...]], int], List[Tuple[Tuple[int, ...], float]]]


@torch.inference_mode()
def fast_beam_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: FastBeamOptions = FastBeamOptions(ilme_scale=0.1),
    graph: Optional[Fsa] = None,
    num_paths: int = 200,
    nbest_scale: float = 0.5,
    num_best: int = 0,
) -> List[List[Hypothesis]]:
    """Draw paths from the lattice and take the sequences whose score in the lattice is the highest.

    Without a graph these are token sequences, scored by their best path. With a graph that has words they are word sequences, and
    the probabilities of all their paths are added up.

    Args:
      model, encoder_out, encoder_out_lens, opts, graph: as for :func:`~asr_core.decoding.transducer.fast_beam.fast_beam_search`.
      num_paths: paths drawn from each lattice.
      nbest_scale: the lattice's scores are multiplied by it while drawing: the smaller, the more various the paths.
      num_best: hypotheses returned at most; 0: all.

    Returns:
      For each utterance its hypotheses, the best first; one at least.
    """
    log_sum = graph is not None and graph.names is not None

    def rank(
        lattice: Lattice, labels: np.ndarray, sequences: List[Tuple[int, ...]], _: int
    ) -> List[Tuple[Tuple[int, ...], float]]:
        scored = [(s, lattice.total_score(labels, s, log_sum)) for s in sequences]
        return sorted(scored, key=lambda item: -item[1])

    return _search(model, encoder_out, encoder_out_lens, opts, graph, num_paths, nbest_scale, rank, num_best)


@torch.inference_mode()
def fast_beam_oracle_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    references: Optional[Sequence[Sequence[int]]],
    opts: FastBeamOptions = FastBeamOptions(ilme_scale=0.1),
    num_paths: int = 200,
    nbest_scale: float = 0.5,
    num_best: int = 0,
) -> List[List[Hypothesis]]:
    """Draw paths from the lattice and take those with the fewest errors: what no rescoring of these paths can beat.

    Args:
      references: token ids of each utterance's transcript.
      model, encoder_out, encoder_out_lens, opts, num_paths, nbest_scale, num_best: as for :func:`fast_beam_nbest`.

    Raises:
      UserError: there are no references.
    """
    if references is None:
        raise UserError("fast_beam_search_nbest_oracle needs the transcripts, which only decode.py has")

    from kaldialign import edit_distance

    def rank(
        lattice: Lattice, labels: np.ndarray, sequences: List[Tuple[int, ...]], i: int
    ) -> List[Tuple[Tuple[int, ...], float]]:
        errors = {s: edit_distance(list(references[i]), list(s))["total"] for s in sequences}
        fewest = sequences if num_best != 1 else [s for s in sequences if errors[s] == min(errors.values())]
        scored = [(s, lattice.total_score(labels, s, False)) for s in fewest]
        return sorted(scored, key=lambda item: (errors[item[0]], -item[1]))

    return _search(model, encoder_out, encoder_out_lens, opts, None, num_paths, nbest_scale, rank, num_best)


def _search(
    model: Any,
    encoder_out: Tensor,
    lens: Tensor,
    opts: FastBeamOptions,
    graph: Optional[Fsa],
    num_paths: int,
    scale: float,
    rank: _Rank,
    num_best: int,
) -> List[List[Hypothesis]]:
    search = FastBeamCore(model, opts, graph)
    packed = pack_frames(encoder_out, lens)
    frontier, trace = search.run(packed.frames, search.start(encoder_out.size(0)), all_transitions=True)
    order = packed.order.tolist()
    lattices = build_lattices(search, frontier, trace, lens.to(packed.order.device)[packed.order].tolist())
    labels_of = graph.output if graph is not None and graph.names is not None else token_of_arc(search, graph)
    out = [[Hypothesis([], [], 0.0, None if graph is None or graph.names is None else [])] for _ in order]
    for lattice, i in zip(lattices, order):
        labels = lattice.labels(labels_of)
        sequences = lattice.sequences(lattice.random_paths(num_paths, scale), labels)
        if not sequences:
            continue
        out[i] = []
        for sequence, score in rank(lattice, labels, sequences, i)[: num_best or None]:
            path, _ = lattice.best_path(labels, sequence)
            out[i].append(search.hypothesis(*arcs_and_times(torch.from_numpy(lattice.arc[path])), score))
    return out
