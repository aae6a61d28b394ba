"""N-best methods of fast beam search: paths drawn from the lattice, ranked by one of three
criteria.
"""

from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import FastBeamOptions, NbestOptions
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.lattice import Lattice
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.transducer.fast_beam import FastBeamCore
from asr_core.decoding.transducer.fast_beam_lattice import build_lattices, token_of_arc
from asr_core.decoding.transducer.frame_synchronous import to_paths
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.utils.errors import UserError

ILME_SCALE = 0.1  # usual weight of the internal language model where no graph adds a language model

_Sequence = Tuple[int, ...]
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
) -> List[List[Hypothesis]]:
    """Draw paths from the lattice; return the sequences with the highest scores in the lattice.

    Without a graph these are token sequences, scored by their best path. With a graph that has
    words they are word sequences, and the probabilities of all their paths are added up.

    Args:
      model, encoder_out, encoder_out_lens, opts, graph: as for
        :func:`~asr_core.decoding.transducer.fast_beam.fast_beam_search`; encoder_out is (N, T, C).
      nbest: paths drawn, and the length of the lists.

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

    search = FastBeamCore(model, opts, graph, keep_transitions=True)
    return _NBest(search, graph, rank, nbest).search(encoder_out, encoder_out_lens)


@torch.inference_mode()
def fast_beam_oracle_nbest(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    references: Optional[Sequence[Sequence[int]]],
    opts: FastBeamOptions = FastBeamOptions(ilme_scale=ILME_SCALE),
    nbest: NbestOptions = NbestOptions(),
) -> List[List[Hypothesis]]:
    """Draw paths from the lattice and take those with the fewest errors: what no rescoring of these
    paths can beat.

    Args:
      references: token ids of each utterance's transcript.
      model, encoder_out, encoder_out_lens, opts, nbest: as for :func:`fast_beam_nbest`;
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

    search = FastBeamCore(model, opts, keep_transitions=True)
    return _NBest(search, None, rank, nbest).search(encoder_out, encoder_out_lens)


class _NBest:
    """A search for lattices, and the choice among paths drawn from them."""

    def __init__(self, search: FastBeamCore, graph: Optional[Fsa], rank: _Rank, opts: NbestOptions) -> None:
        self._search = search
        self._has_words = graph is not None and graph.names is not None
        self._labels_of_arc = (
            graph.output if graph is not None and self._has_words else token_of_arc(search, graph)
        )
        self._rank = rank
        self._opts = opts

    def search(self, encoder_out: Tensor, lens: Tensor) -> List[List[Hypothesis]]:
        """Return n-best lists of encoder output (N, T, C) with lengths (N,)."""
        packed = pack_frames(encoder_out, lens)
        frontier, _ = self._search.run(packed.frames, self._search.start(encoder_out.size(0)))
        order = packed.order.tolist()
        descending = lens.to(packed.order.device)[packed.order].tolist()
        lattices = build_lattices(self._search, frontier, descending)
        found = {i: self._of_lattice(lattice, i) for lattice, i in zip(lattices, order)}
        return [found[i] for i in range(len(order))]

    def _of_lattice(self, lattice: Lattice, i: int) -> List[Hypothesis]:
        """Return the hypotheses of utterance ``i``."""
        labels = lattice.labels(self._labels_of_arc)  # (A,)
        sequences = lattice.sequences(lattice.random_paths(self._opts.num_paths, self._opts.scale), labels)
        if not sequences:
            return [Hypothesis([], [], 0.0, [] if self._has_words else None)]
        out: List[Hypothesis] = []
        for sequence, score in self._rank(lattice, labels, sequences, i)[: self._opts.num_best or None]:
            path, _ = lattice.best_path(labels, sequence)  # (T,) arcs of the lattice
            arcs = torch.from_numpy(lattice.arc[path])[None, None]  # (1, 1, T)
            (((tokens, frames),),) = to_paths(arcs, self._search.blank)
            out.append(self._search.hypothesis(tokens, frames, score))
        return out
