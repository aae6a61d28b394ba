"""Fast beam search: a beam of predictor contexts and graph states, best paths merged where they
meet.

Kang et al. 2023, "Fast and parallel decoding for transducer", https://arxiv.org/abs/2211.00484.
"""

from typing import List, Optional, Sequence, Tuple, cast

import torch
from torch import Tensor

from asr_core.decoding.beam_options import FastBeamOptions
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import StatelessDecoder, Transducer
from asr_core.decoding.transducer.context_table import ContextTable, fits_table
from asr_core.decoding.transducer.contexts import ContextCache, Contexts
from asr_core.decoding.transducer.frame_synchronous import (
    FrameSynchronousSearch,
    PathStream,
    advance_streams,
    backtrack,
    to_paths,
)
from asr_core.decoding.transducer.hashed_contexts import HashedContexts
from asr_core.decoding.transducer.internal_lm import internal_log_probs
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.decoding.transducer.predictor import is_recurrent
from asr_core.ops import fast_beam as ops

BLANK_ARC = -1  # stands for blank among the arcs that a path takes
_NEVER = float("-inf")


@torch.inference_mode()
def fast_beam_search(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: FastBeamOptions = FastBeamOptions(),
    graph: Optional[Fsa] = None,
) -> List[Hypothesis]:
    """Find the best path through pairs of predictor context and graph state.

    At most one token per frame. Paths that meet in a state are merged by taking the better one; the
    score is that of the path.

    Args:
      model: eager or TorchScript. With an LSTM predictor only equal token sequences meet.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: beam and limits.
      graph: over tokens; None accepts everything. With output labels, hypotheses have words.
    """
    search = FastBeamCore(model, opts, graph)
    packed = pack_frames(encoder_out, encoder_out_lens)
    frontier, trace = search.run(packed.frames, search.start(encoder_out.size(0)))
    score, best = search.final_scores(frontier).max(dim=1)  # (N,)
    _, arcs = backtrack(trace, best.unsqueeze(1), search.blank)  # (N, 1, T)
    paths = to_paths(arcs, search.blank)
    found = [
        search.hypothesis(tokens, frames, total) for ((tokens, frames),), total in zip(paths, score.tolist())
    ]
    return [found[row] for row in packed.order.argsort().tolist()]


class FastBeamStream(PathStream[ops.Frontier]):
    """The state of fast beam search in one stream: its frontier, and the arcs on the best path to
    each state.

    Attributes:
      cache: the predictor's states that a stream keeps.
    """

    def __init__(self, search: "FastBeamCore", frontier: ops.Frontier, cache: Optional[ContextCache]) -> None:
        super().__init__(frontier, search.final_scores(frontier))
        self._search = search
        self.cache = cache

    def hypothesis(self) -> Hypothesis:
        """Return the best hypothesis up to now."""
        best = int(self.final.argmax(dim=1))
        arcs, times = self.paths[best]
        return self._search.hypothesis(arcs, times, float(self.final[0, best]))


class StreamingFastBeamSearch:
    """Fast beam search over streams, see :class:`~asr_core.decoding.protocol.StreamingSearch`.

    Arguments as of :func:`fast_beam_search`.
    """

    def __init__(
        self, model: Transducer, opts: FastBeamOptions = FastBeamOptions(), graph: Optional[Fsa] = None
    ) -> None:
        # nothing is evicted within a chunk: streams end at different frames of it
        self._search = FastBeamCore(model, opts, graph, evict=False)

    def new_stream(self) -> FastBeamStream:
        """Return the state of a new stream."""
        frontier = self._search.start(1)
        (cache,) = self._search.remember(frontier)
        return FastBeamStream(self._search, frontier, cache)

    @torch.inference_mode()
    def advance(self, streams: List[FastBeamStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume the next frames of each stream; ``encoder_out`` is (N, T, C)."""
        if not streams:
            return
        self._search.recall([stream.cache for stream in streams])
        advance_streams(self._search, streams, encoder_out, encoder_out_lens)
        frontier = self._search.join([stream.state for stream in streams])
        for stream, cache in zip(streams, self._search.remember(frontier)):
            stream.cache = cache


class FastBeamCore(FrameSynchronousSearch[ops.Frontier]):
    """The search itself, on tensors (N, S) of S states for each utterance.

    Args:
      model, opts, graph: as of :func:`fast_beam_search`.
      evict: see :class:`~asr_core.decoding.transducer.hashed_contexts.HashedContexts`.
      keep_transitions: note all transitions, for lattices.

    Attributes:
      arcs: the graph.
      transitions: transitions of each frame since :meth:`start`, if they are kept.
    """

    def __init__(
        self,
        model: Transducer,
        opts: FastBeamOptions,
        graph: Optional[Fsa] = None,
        *,
        evict: bool = True,
        keep_transitions: bool = False,
    ) -> None:
        super().__init__(model.joiner, BLANK_ARC)
        self._contexts = _contexts(model, evict)
        self._opts = opts
        self._graph = graph
        contexts = self._contexts
        if graph is None:
            self.arcs = ops.trivial_arcs(contexts.vocab_size, contexts.blank_id, contexts.device)
        else:
            graph.check_labels(contexts.vocab_size, contexts.blank_id)
            self.arcs = ops.as_arcs(graph.begin, graph.label, graph.dest, graph.score, contexts.device)
        self._limits = ops.Limits(
            beam=opts.beam,
            max_contexts=opts.max_contexts,
            max_states=opts.max_states,
            base=contexts.base,
            keep=contexts.keep,
            blank=contexts.blank_id,
        )
        self._tokens: List[int] = self.arcs.label.tolist() if graph is None else []
        self._keep_transitions = keep_transitions
        self.transitions: List[ops.Transitions] = []

    def start(self, num: int) -> ops.Frontier:
        """Return the states of ``num`` new utterances."""
        self.transitions = []
        graph_state = 0 if self._graph is None else self._graph.start
        return ops.start(self._contexts.start(num), graph_state, self._opts.max_states)

    def remember(self, frontier: ops.Frontier) -> List[Optional[ContextCache]]:
        """Return the cache that each stream must keep until its next frames."""
        return self._contexts.remember(frontier.code, frontier.score > _NEVER)

    def recall(self, caches: Sequence[Optional[ContextCache]]) -> None:
        """Restore the predictor's contexts from these caches."""
        self._contexts.recall(caches)

    def rows(self, state: ops.Frontier, start: int, end: int) -> ops.Frontier:
        """Return the states of utterances start..end-1."""
        return ops.Frontier(state.code[start:end], state.graph_state[start:end], state.score[start:end])

    def join(self, parts: Sequence[ops.Frontier]) -> ops.Frontier:
        """Return the states of several groups of utterances as one frontier."""
        return ops.Frontier(
            code=torch.cat([part.code for part in parts]),
            graph_state=torch.cat([part.graph_state for part in parts]),
            score=torch.cat([part.score for part in parts]),
        )

    def step(self, frame: Tensor, state: ops.Frontier) -> Tuple[ops.Frontier, Tensor, Tensor]:
        """Consume one projected frame (N, J), see :class:`FrameSynchronousSearch`; the symbols are
        arcs.
        """
        code, stream, index = ops.contexts_of(state)  # (M,), (M,), (N, S)
        log_probs = self._log_probs(frame[stream], code)  # (M, V)
        after = ops.advance(state, index, log_probs, self.arcs, self._limits, self._keep_transitions)
        self.transitions.extend(after.transitions)
        return after.frontier, after.parent, after.arc

    def _log_probs(self, frame: Tensor, code: Tensor) -> Tensor:
        """Return the scores (M, V) of the tokens after contexts ``code`` (M,) on projected frames
        (M, J).
        """
        opts, blank = self._opts, self._contexts.blank_id
        decoder_out = self._contexts(code)  # (M, J)
        logits = self.joiner(frame, decoder_out, project_input=False)
        log_probs = adjusted_log_probs(logits, blank, opts)
        if opts.ilme_scale != 0:
            internal = internal_log_probs(self.joiner, decoder_out, blank, opts)
            log_probs = log_probs - opts.ilme_scale * internal
        return log_probs.float()

    def end_scores(self, frontier: ops.Frontier) -> Tensor:
        """Return the scores (N, S) of ending in each state.

        Where no state of a stream is final in the graph, ending is free in all.
        """
        here = frontier.score > _NEVER
        free = torch.zeros_like(frontier.score).masked_fill(~here, _NEVER)
        if self._graph is None:
            return free
        final = torch.from_numpy(self._graph.final).to(frontier.score)  # (states of the graph,)
        final = final[frontier.graph_state].masked_fill(~here, _NEVER)  # (N, S)
        return torch.where(final.max(dim=1, keepdim=True).values > _NEVER, final, free)

    def final_scores(self, state: ops.Frontier) -> Tensor:
        """Return the scores (N, S) of the best paths that end in each state."""
        return state.score + self.end_scores(state)

    def hypothesis(self, arcs: List[int], timestamps: List[int], score: float) -> Hypothesis:
        """Return a path as a hypothesis: its tokens, and its words where the graph has words."""
        if self._graph is None:
            return Hypothesis([self._tokens[arc] for arc in arcs], list(timestamps), score)
        return hypothesis_of(self._graph, arcs, timestamps, score)


def hypothesis_of(graph: Fsa, arcs: List[int], timestamps: List[int], score: float) -> Hypothesis:
    """Return a path in ``graph`` as a hypothesis."""
    tokens = [int(graph.label[arc]) for arc in arcs]
    return Hypothesis(tokens, list(timestamps), score, graph.words(arcs))


def _contexts(model: Transducer, evict: bool) -> Contexts:
    """Return the contexts of a predictor as numbers where they fit into 64 bits, else as hashes."""
    if not is_recurrent(model.decoder) and fits_table(cast(StatelessDecoder, model.decoder)):
        return ContextTable(model)
    return HashedContexts(model, evict)
