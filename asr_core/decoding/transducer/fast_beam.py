"""Fast beam search: a beam of predictor contexts and graph states, best paths merged where they meet."""

from typing import Any, List, NamedTuple, Optional, Tuple, Union

import torch
from torch import Tensor

from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.transducer.context_table import (
    ContextTable,
    adjusted_log_probs,
    fits_table,
    internal_log_probs,
)
from asr_core.decoding.transducer.hashed_contexts import ContextCache, HashedContexts
from asr_core.decoding.transducer.modified_beam import backtrack
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.decoding.transducer.predictor import is_recurrent
from asr_core.ops import fast_beam as ops

_BLANK = -1  # stands for blank among the arcs that a path takes


class FastBeamOptions(NamedTuple):
    """Options of fast beam search.

    Attributes:
      beam: what is worse than the best by more than this (natural log-probability) is dropped.
      max_contexts: predictor contexts kept per frame.
      max_states: pairs of context and graph state kept per frame.
      blank_penalty: subtracted from the logit of blank.
      temperature: logits are divided by it.
      ilme_scale: weight of the internal language model, the joiner without the encoder, that is subtracted.
    """

    beam: float = 20.0
    max_contexts: int = 8
    max_states: int = 64
    blank_penalty: float = 0.0
    temperature: float = 1.0
    ilme_scale: float = 0.0


class Trace(NamedTuple):
    """How the states came about: for each frame the place of the best predecessor and the arc taken (-1: blank), both (n_t, S).

    ``transitions`` are all of them, by frame, where a lattice is wanted; else empty.
    """

    parents: List[Tensor]
    arcs: List[Tensor]
    transitions: List[ops.Transitions]


@torch.inference_mode()
def fast_beam_search(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: FastBeamOptions = FastBeamOptions(),
    graph: Optional[Fsa] = None,
) -> List[Hypothesis]:
    """The best path of a search whose states are pairs of predictor context and graph state (k2's RnntDecodingStreams).

    At most one token per frame. Paths that meet in a state are merged by taking the better one. The score is that of the path.

    Args:
      model: has ``decoder`` and ``joiner``; eager or TorchScript. With an LSTM predictor only equal token sequences meet.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: beam and limits.
      graph: over tokens; None accepts everything. Where it has output labels, hypotheses have words.
    """
    search = FastBeamCore(model, opts, graph)
    packed = pack_frames(encoder_out, encoder_out_lens)
    frontier, trace = search.run(packed.frames, search.start(encoder_out.size(0)))
    score, best = search.final_scores(frontier).max(dim=1)
    _, arcs = backtrack(trace.parents, trace.arcs, best.unsqueeze(1), _BLANK)
    found = [
        search.hypothesis(*arcs_and_times(arcs[row, 0]), total) for row, total in enumerate(score.tolist())
    ]
    return [found[row] for row in packed.order.argsort().tolist()]


class FastBeamStream:
    """What fast beam search remembers of one stream: its states and the arcs on the best path to each."""

    def __init__(self, frontier: ops.Frontier, memory: Optional[ContextCache]) -> None:
        self.frontier = frontier
        self.memory = memory
        self.paths: List[Tuple[List[int], List[int]]] = [([], [])]  # arcs and their frames, of each state
        self.num_frames = 0
        self.best: Hypothesis = Hypothesis([], [], 0.0)

    def hypothesis(self) -> Hypothesis:
        """The best hypothesis up to now."""
        return self.best


class StreamingFastBeamSearch:
    """Fast beam search over streams that arrive chunk by chunk; any streams may be advanced together.

    Arguments as of :func:`fast_beam_search`.
    """

    def __init__(
        self, model: Any, opts: FastBeamOptions = FastBeamOptions(), graph: Optional[Fsa] = None
    ) -> None:
        self._search = FastBeamCore(
            model, opts, graph, evict=False
        )  # streams end at different frames of a chunk

    def new_stream(self) -> FastBeamStream:
        """The state of a stream that has not begun."""
        frontier = self._search.start(1)
        return FastBeamStream(frontier, *self._search.memories(frontier))

    @torch.inference_mode()
    def advance(self, streams: List[FastBeamStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``.

        Args:
          streams: N of them, changed in place.
          encoder_out: (N, T, C), not projected.
          encoder_out_lens: (N,) int64.
        """
        packed = pack_frames(encoder_out, encoder_out_lens)
        ordered = [streams[i] for i in packed.order.tolist()]
        self._search.recall([s.memory for s in ordered if s.memory is not None])
        frontier, trace = self._search.run(
            packed.frames, ops.Frontier(*map(torch.cat, zip(*(s.frontier for s in ordered))))
        )
        memories = self._search.memories(frontier)
        num, size = frontier.score.shape
        places = torch.arange(size, device=frontier.score.device).expand(num, size)
        origins, arcs = backtrack(trace.parents, trace.arcs, places, _BLANK)
        counts = (frontier.score > float("-inf")).sum(dim=1).tolist()
        score, best = self._search.final_scores(frontier).max(dim=1)
        lens = encoder_out_lens.to(packed.order.device)[packed.order].tolist()
        for row, (stream, origin) in enumerate(zip(ordered, origins.tolist())):
            paths = []
            for place in range(max(counts[row], 1)):
                before, times = stream.paths[origin[place]]
                new, at = arcs_and_times(arcs[row, place])
                paths.append((before + new, times + [stream.num_frames + t for t in at]))
            stream.paths, stream.num_frames = paths, stream.num_frames + lens[row]
            stream.frontier = ops.Frontier(*(x[row : row + 1] for x in frontier))
            stream.memory = memories[row]
            stream.best = self._search.hypothesis(*paths[int(best[row])], float(score[row]))


class FastBeamCore:
    """The search itself, on tensors (utterances, states).

    Arguments as of :func:`fast_beam_search`, and of :class:`~asr_core.decoding.transducer.hashed_contexts.HashedContexts`.
    """

    def __init__(
        self, model: Any, opts: FastBeamOptions, graph: Optional[Fsa] = None, evict: bool = True
    ) -> None:
        if not (opts.beam > 0 and opts.max_contexts >= 1 and opts.max_states >= 1):
            raise ValueError(f"beam must be positive, max_contexts and max_states at least 1, got {opts}")
        self._joiner = model.joiner
        numbered = not is_recurrent(model.decoder) and fits_table(model.decoder)
        self._table: Union[ContextTable, HashedContexts] = (
            ContextTable(model) if numbered else HashedContexts(model, evict)
        )
        self._opts = opts
        self._graph = graph
        table = self._table
        if graph is None:
            self.arcs = ops.trivial_arcs(table.vocab_size, table.blank_id, table.device)
        else:
            graph.check_labels(table.vocab_size, table.blank_id)
            self.arcs = ops.as_arcs(graph.begin, graph.label, graph.dest, graph.score, table.device)
        self._limits = ops.Limits(
            opts.beam, opts.max_contexts, opts.max_states, table.base, table.keep, table.blank_id
        )
        self._labels: List[int] = self.arcs.label.tolist() if graph is None else []

    def start(self, num: int) -> ops.Frontier:
        """The states of ``num`` utterances that have not begun."""
        if isinstance(self._table, HashedContexts):
            self._table.memory = self._table.new_memory()
        return ops.start(
            self._table.start(num), self._graph.start if self._graph else 0, self._opts.max_states
        )

    def memories(self, frontier: ops.Frontier) -> List[Optional[ContextCache]]:
        """What has to be kept of the contexts of each stream until its next frames; None where contexts are numbers."""
        table = self._table
        if not isinstance(table, HashedContexts):
            return [None] * len(frontier.score)
        here = frontier.score > float("-inf")
        table(frontier.code[here])
        return [table.of(code[valid]) for code, valid in zip(frontier.code, here)]

    def recall(self, memories: List[ContextCache]) -> None:
        """Go on with streams that have these memories, if any."""
        if isinstance(self._table, HashedContexts):
            self._table.recall(memories)

    def run(
        self, frames: List[Tensor], frontier: ops.Frontier, all_transitions: bool = False
    ) -> Tuple[ops.Frontier, Trace]:
        """Search ``frames`` (of :func:`pack_frames`, not projected); rows of ``frontier`` in the same order."""
        trace = Trace([], [], [])
        done: List[ops.Frontier] = []
        if frames:
            frames = list(self._joiner.encoder_proj(torch.cat(frames)).split([len(f) for f in frames]))
        for frame in frames:
            n, size = len(frame), len(frontier.score)
            if n < size:
                done.append(ops.Frontier(*(x[n:size] for x in frontier)))
                frontier = ops.Frontier(*(x[:n] for x in frontier))
            code, stream, index = ops.contexts_of(frontier)
            log_probs = self._log_probs(frame[stream], code)
            frontier, parent, arc, transitions = ops.advance(
                frontier, index, log_probs, self.arcs, self._limits, all_transitions
            )
            trace.parents.append(parent)
            trace.arcs.append(arc)
            trace.transitions.extend(transitions)
        return ops.Frontier(*(torch.cat(parts) for parts in zip(frontier, *reversed(done)))), trace

    def _log_probs(self, frame: Tensor, code: Tensor) -> Tensor:
        """Scores (M, V) of the tokens after contexts ``code`` (M,) on projected frames (M, C)."""
        o, blank = self._opts, self._table.blank_id
        decoder_out = self._table(code)
        logits = self._joiner(frame, decoder_out, project_input=False)
        log_probs = adjusted_log_probs(logits, blank, o.blank_penalty, o.temperature)
        if o.ilme_scale != 0:
            internal = internal_log_probs(self._joiner, decoder_out, blank, o.blank_penalty, o.temperature)
            log_probs = log_probs - o.ilme_scale * internal
        return log_probs.float()

    def end_scores(self, frontier: ops.Frontier) -> Tensor:
        """What ending in each state (N, S) scores; where no state of a stream is final in the graph, ending is free in all."""
        here = frontier.score > float("-inf")
        free = torch.zeros_like(frontier.score).masked_fill(~here, float("-inf"))
        if self._graph is None:
            return free
        final = (
            torch.from_numpy(self._graph.final)
            .to(frontier.score)[frontier.graph_state]
            .masked_fill(~here, float("-inf"))
        )
        return torch.where(final.max(dim=1, keepdim=True).values > float("-inf"), final, free)

    def final_scores(self, frontier: ops.Frontier) -> Tensor:
        """Scores (N, S) of the best paths that end in each state."""
        return frontier.score + self.end_scores(frontier)

    def token(self, arc: int) -> int:
        """The token of an arc."""
        return int(self._graph.label[arc]) if self._graph else self._labels[arc]

    def hypothesis(self, arcs: List[int], timestamps: List[int], score: float) -> Hypothesis:
        """What a path is: its tokens, and its words where the graph has words."""
        words = self._graph.words(arcs) if self._graph else None
        return Hypothesis([self.token(a) for a in arcs], timestamps, score, words)


def arcs_and_times(arcs: Tensor) -> Tuple[List[int], List[int]]:
    """Arcs (T,) of a path without blanks, and their frames."""
    frames = (arcs != _BLANK).nonzero().squeeze(1)
    return arcs[frames].tolist(), frames.tolist()
