"""The kernels of searches and language models, compiled with all others beforehand.

numba compiles these for the types that they are called with, so each is called as the searches call
it, on a problem of two frames.
"""

from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions
from asr_core.decoding.ctc.graph_search import intersect
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.graph.ctc_topology import ctc_topology
from asr_core.decoding.protocol import CtcModel
from asr_core.lm.arpa import Arpa
from asr_core.lm.ngram import NgramLm
from asr_core.ops import compile_kernels as ops
from asr_core.ops import fast_beam

_NUM_TOKENS = 3


def compile_kernels() -> str:
    """Compile all kernels that are not compiled yet, and return a line that says what was done.

    Raises:
      UserError: numba is not installed.
    """
    return ops.compile_kernels(use_kernels)


def use_kernels() -> None:
    """Call each kernel of the searches and of n-grams once."""
    log_probs = torch.zeros(1, 2, _NUM_TOKENS).log_softmax(dim=2)
    _search_ctc(log_probs)
    _search_transducer(log_probs[0, :1])
    _score_words()


def _search_ctc(log_probs: torch.Tensor) -> None:
    lens = torch.tensor([log_probs.size(1)])
    model = cast(CtcModel, SimpleNamespace(ctc_output=lambda x: x))
    ctc_prefix_beam_search(model, log_probs, lens, BeamOptions())
    graph = ctc_topology(_NUM_TOKENS)
    for lattice in intersect(log_probs, lens, graph):
        labels = lattice.labels(graph.output)
        paths = lattice.pruned(1.0).random_paths(1, 1.0)
        (sequence,) = lattice.sequences(paths, labels)
        lattice.shortest_path()
        lattice.best_path(labels, sequence)
        lattice.total_score(labels, sequence, log_sum=True)


def _search_transducer(log_probs: torch.Tensor) -> None:
    opts = FastBeamOptions()
    limits = fast_beam.Limits(opts.beam, opts.max_contexts, opts.max_states, _NUM_TOKENS + 1, 1, blank=0)
    arcs = fast_beam.trivial_arcs(_NUM_TOKENS, 0, log_probs.device)
    frontier = fast_beam.start(torch.zeros(1, dtype=torch.int64), 0, opts.max_states)
    _, _, index = fast_beam.contexts_of(frontier)
    fast_beam.advance(frontier, index, log_probs, arcs, limits)


def _score_words() -> None:
    words, numbers = np.zeros((1, 1), np.int32), np.zeros(1, np.float32)
    lm = NgramLm.from_ngrams(Arpa({"A": 0}, [words], [numbers], [numbers]))
    lm.score(0, 0)
    lm.score_batch(words[0], words[0])
