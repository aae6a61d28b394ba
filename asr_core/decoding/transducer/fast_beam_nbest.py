"""N-best methods of fast beam search: paths drawn from the lattice, ranked by one of three
criteria.
"""

import functools
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import FastBeamOptions, NbestOptions
from asr_core.decoding.graph.fsa import Fsa, accept_all
from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.transducer.fast_beam import BLANK_ARC, FastBeamCore, hypothesis_of
from asr_core.decoding.transducer.fast_beam_lattice import build_lattices
from asr_core.decoding.transducer.frame_synchronous import to_paths
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.utils.errors import UserError

ILME_SCALE = 0.1  # usual weight of the internal language model where no graph adds a language model

_Sequence = Tuple[int, ...]
FindLattices = Callable[[FastBeamOptions, Fsa], List[Lattice]]  # of the batch at hand
# (lattice, labels of its arcs, the sequences drawn, index of the utterance) -> the sequences in
# order of merit, with their scores
_Rank = Callable[[Lattice, np.ndarray, List[_Sequence], int], List[Tuple[_Sequence, float]]]


@torch.inference_mode()
def fast_beam_nbest(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: FastBeamOptions = FastBeamOptions(ilme_scale=ILME_SCALE),
    graph: Optional[Fsa] = None,
    nbest: NbestOptions = NbestOptions(),
    find: Optional[FindLattices] = None,
) -> List[List[Hypothesis]]:
    """Draw paths from the lattice; return the sequences with the highest scores in the lattice.

    Without a graph these are token sequences, scored by their best path. With a graph that has
    words they are word sequences, and the probabilities of all their paths are added up.

    Args:
      model, encoder_out, encoder_out_lens, opts, graph: as for
        :func:`~asr_core.decoding.transducer.fast_beam.fast_beam_search`; encoder_out is (N, T, C).
      nbest: paths drawn, and the length of the lists.
      find: finds the lattices, if not :func:`find_lattices`.

    Returns:
      For each utterance its hypotheses, the best first, no two with the same tokens (or words) and
      one at least.
    """
    log_sum = graph is not None and graph.names is not None

    def rank(
        lattice: Lattice, labels: np.ndarray, sequences: List[_Sequence], _: int
    ) -> List[Tuple[_Sequence, float]]:
        scored = [(s, lattice.total_score(labels, s, log_sum)) for s in sequences]
        return sorted(scored, key=lambda item: -item[1])

    searched = accept_all(model.decoder.vocab_size, model.decoder.blank_id) if graph is None else graph
    if find is None:
        find = functools.partial(find_lattices, model, encoder_out, encoder_out_lens)
    lattices = find(opts, searched)
    return [_of_lattice(lattice, searched, rank, nbest, i) for i, lattice in enumerate(lattices)]


@torch.inference_mode()
def fast_beam_oracle_nbest(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    references: Optional[Sequence[Sequence[int]]],
    opts: FastBeamOptions = FastBeamOptions(ilme_scale=ILME_SCALE),
    nbest: NbestOptions = NbestOptions(),
    find: Optional[FindLattices] = None,
) -> List[List[Hypothesis]]:
    """Draw paths from the lattice and take those with the fewest errors: what no rescoring of these
    paths can beat.

    Args:
      references: token ids of each utterance's transcript.
      model, encoder_out, encoder_out_lens, opts, nbest, find: as for :func:`fast_beam_nbest`;
        encoder_out is (N, T, C).

    Raises:
      UserError: there are no references.
    """
    if references is None:
        raise UserError("fast_beam_search_nbest_oracle needs the transcripts, which only decode.py has")

    from kaldialign import edit_distance

    def rank(
        lattice: Lattice, labels: np.ndarray, sequences: List[_Sequence], i: int
    ) -> List[Tuple[_Sequence, float]]:
        errors = {s: edit_distance(list(references[i]), list(s))["total"] for s in sequences}
        fewest = sequences
        if nbest.num_best == 1:  # the others need no scores
            least = min(errors.values())
            fewest = [s for s in sequences if errors[s] == least]
        scored = [(s, lattice.total_score(labels, s, False)) for s in fewest]
        return sorted(scored, key=lambda item: (errors[item[0]], -item[1]))

    graph = accept_all(model.decoder.vocab_size, model.decoder.blank_id)
    if find is None:
        find = functools.partial(find_lattices, model, encoder_out, encoder_out_lens)
    lattices = find(opts, graph)
    return [_of_lattice(lattice, graph, rank, nbest, i) for i, lattice in enumerate(lattices)]


@torch.inference_mode()
def find_lattices(
    model: Transducer, encoder_out: Tensor, encoder_out_lens: Tensor, opts: FastBeamOptions, graph: Fsa
) -> List[Lattice]:
    """Return the lattice of each utterance; arguments as of :func:`fast_beam_nbest`."""
    search = FastBeamCore(model, opts, graph, keep_transitions=True)
    packed = pack_frames(encoder_out, encoder_out_lens)
    frontier, _ = search.run(packed.frames, search.start(encoder_out.size(0)))
    descending = encoder_out_lens.to(packed.order.device)[packed.order].tolist()
    lattices = build_lattices(search, frontier, descending)
    return [lattices[place] for place in packed.order.argsort().tolist()]


def _of_lattice(lattice: Lattice, graph: Fsa, rank: _Rank, opts: NbestOptions, i: int) -> List[Hypothesis]:
    """Return the hypotheses of utterance ``i``."""
    has_words = graph.names is not None
    labels = lattice.labels(graph.output if has_words else graph.label)  # (A,)
    sequences = lattice.sequences(lattice.random_paths(opts.num_paths, opts.scale), labels)
    if not sequences:
        return [Hypothesis([], [], 0.0, [] if has_words else None)]
    out: List[Hypothesis] = []
    for sequence, score in rank(lattice, labels, sequences, i)[: opts.num_best or None]:
        path, _ = lattice.best_path(labels, sequence)  # (T,) arcs of the lattice
        arcs = torch.from_numpy(lattice.arc[path])[None, None]  # (1, 1, T)
        (((tokens, frames),),) = to_paths(arcs, BLANK_ARC)
        out.append(hypothesis_of(graph, tokens, frames, score))
    return out
