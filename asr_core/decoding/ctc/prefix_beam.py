"""Prefix beam search with the CTC head, whole utterances or streams, with language models and phrases to favour."""

from typing import Any, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.ctc.greedy import BLANK, ctc_log_probs
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.scorers.token_scorers import Scorer, States, join, pick
from asr_core.decoding.transducer.modified_beam import KEY_FACTOR
from asr_core.ops.cpu import ctc_prefix as ops


def ctc_prefix_beam_search(
    model: Any, encoder_out: Tensor, encoder_out_lens: Tensor, *args: Any, **kwargs: Any
) -> List[Hypothesis]:
    """The best token sequence that prefix beam search finds; arguments as of :func:`ctc_prefix_nbest`."""
    return [
        best[0]
        for best in ctc_prefix_nbest(model, encoder_out, encoder_out_lens, *args, **kwargs, num_best=1)
    ]


@torch.inference_mode()
def ctc_prefix_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    scorers: Sequence[Scorer] = (),
    num_best: int = 0,
) -> List[List[Hypothesis]]:
    """Prefix beam search (Hannun et al. 2014, https://arxiv.org/abs/1408.2873).

    The probability of a prefix is the sum over all its alignments that stay in the beam; every token may extend it. To its logarithm
    the scorers add what they say of its tokens, from the frame on that follows the token.

    Args:
      model: has ``ctc_output``; eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      beam_size: prefixes kept per utterance.
      blank_penalty, temperature: see :func:`~asr_core.decoding.ctc.greedy.ctc_greedy_search`.
      scorers: language models and the like.
      num_best: hypotheses returned at most; 0: all.

    Returns:
      For each utterance at most ``beam_size`` hypotheses, the best first, no two with the same tokens. Timestamps are those of the best
      alignment in the beam.
    """
    search = StreamingCtcPrefixSearch(model, beam_size, blank_penalty, temperature, scorers)
    streams = [search.new_stream() for _ in range(encoder_out.size(0))]
    search.advance(streams, encoder_out, encoder_out_lens)
    return [stream.nbest(num_best) for stream in streams]


class _Trace(NamedTuple):
    """Where prefixes came from: parents, tokens and links (T, B) of :func:`asr_core.ops.cpu.ctc_prefix.advance`."""

    parents: np.ndarray
    tokens: np.ndarray
    links: np.ndarray


class CtcPrefixStream:
    """What prefix beam search remembers of one stream.

    Attributes:
      score, ident: (B, 5), the live prefixes.
      states: the scorers' states, (1, B, ...).
      ending: (B,) what the scorers say of ending here.
      num_frames: frames seen.
    """

    def __init__(
        self, score: np.ndarray, ident: np.ndarray, states: Tuple[States, ...], ending: np.ndarray
    ) -> None:
        self.score, self.ident, self.states, self.ending = score, ident, states, ending
        self.num_frames = 0
        self._traces: List[_Trace] = []

    def add(self, trace: _Trace) -> None:
        """Note where the prefixes of the frames after the last came from."""
        self._traces.append(trace)
        self.num_frames += len(trace.parents)

    def hypothesis(self) -> Hypothesis:
        """The best hypothesis up to now."""
        return self.nbest(1)[0]

    def nbest(self, num_best: int = 0) -> List[Hypothesis]:
        """The best hypotheses up to now, all where ``num_best`` is 0."""
        total = np.logaddexp(self.score[:, ops.BLANK], self.score[:, ops.TOKEN])
        live = int(np.isfinite(total).sum())
        total = (total + self.score[:, ops.EXTRA] + self.ending)[:live]
        order = np.argsort(-total, kind="stable")[: num_best or live]
        if not live:  # a model that computes no numbers
            return [Hypothesis([], [], ops.NEVER)]
        if not self._traces:
            return [Hypothesis([], [], float(total[k])) for k in order]
        self._traces = [_Trace(*map(np.concatenate, zip(*self._traces)))]
        links = self.ident[:, ops.LINK_BLANK : ops.LINK_TOKEN + 1]
        ends_in_token = self.score[:, ops.BEST_TOKEN] > self.score[:, ops.BEST_BLANK]
        out: List[Hypothesis] = []
        for k in order.tolist():
            tokens, times = ops.trace_back(*self._traces[0], BLANK, k, links[k, int(ends_in_token[k])])
            out.append(Hypothesis(tokens.tolist(), times.tolist(), float(total[k])))
        return out


class StreamingCtcPrefixSearch:
    """CTC prefix beam search over streams that arrive chunk by chunk; any streams may be advanced together.

    Arguments as of :func:`ctc_prefix_nbest`.
    """

    def __init__(
        self,
        model: Any,
        beam_size: int = 4,
        blank_penalty: float = 0.0,
        temperature: float = 1.0,
        scorers: Sequence[Scorer] = (),
    ) -> None:
        if beam_size < 1:
            raise ValueError(f"the beam must hold at least 1 hypothesis, got {beam_size}")
        self._model = model
        self._beam = beam_size
        self._blank_penalty = blank_penalty
        self._temperature = temperature
        self._scorers = scorers

    def new_stream(self) -> CtcPrefixStream:
        """The state of a stream that has not begun."""
        score, ident = np.full((self._beam, 5), ops.NEVER), np.zeros((self._beam, 5), dtype=np.int64)
        score[:, ops.EXTRA] = 0.0
        score[0, ops.BLANK] = score[0, ops.BEST_BLANK] = 0.0
        ident[:, ops.LAST] = BLANK
        ident[:, ops.LINK_BLANK :] = -1
        states = tuple(scorer.start(1, self._beam) for scorer in self._scorers)
        return CtcPrefixStream(score, ident, states, self._endings(states, 1)[0])

    def _endings(self, states: Sequence[States], num: int) -> np.ndarray:
        """What the scorers say of ending in each of ``num`` streams' states, (num, B)."""
        total = np.zeros((num, self._beam))
        for scorer, s in zip(self._scorers, states):
            total += scorer.finish(s).double().cpu().numpy()
        return total

    @torch.inference_mode()
    def advance(self, streams: List[CtcPrefixStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``.

        Args:
          streams: N of them, changed in place.
          encoder_out: (N, T, C).
          encoder_out_lens: (N,) int64.
        """
        if not streams:
            return
        log_probs = (
            ctc_log_probs(self._model, encoder_out, self._blank_penalty, self._temperature)
            .float()
            .cpu()
            .contiguous()
            .numpy()
        )
        lens = encoder_out_lens.cpu().numpy()
        score, ident = np.stack([s.score for s in streams]), np.stack([s.ident for s in streams])
        begin = np.array([s.num_frames for s in streams])
        shape = (len(streams), int(lens.max()), self._beam)
        places = np.arange(self._beam, dtype=np.int32)
        trace = _Trace(
            np.broadcast_to(places, shape).copy(),
            np.full(shape, BLANK, np.int32),
            np.full(shape, -1, np.int64),
        )
        states: Sequence[States] = [join(parts) for parts in zip(*(s.states for s in streams))]
        if self._scorers:
            for t in range(shape[1]):  # scorers speak between frames
                ops.advance(
                    log_probs,
                    np.minimum(lens, t),
                    np.minimum(lens, t + 1),
                    score,
                    ident,
                    begin,
                    BLANK,
                    KEY_FACTOR,
                    *trace,
                )
                states = self._add_scores(
                    score, states, trace.parents[:, t], trace.tokens[:, t], encoder_out.device
                )
        else:
            ops.advance(log_probs, np.zeros_like(lens), lens, score, ident, begin, BLANK, KEY_FACTOR, *trace)
        endings = self._endings(states, len(streams))
        for row, stream in enumerate(streams):
            stream.score, stream.ident, stream.ending = score[row], ident[row], endings[row]
            stream.states = tuple(tuple(x[row : row + 1] for x in s) for s in states)
            stream.add(_Trace(*(x[row, : lens[row]] for x in trace)))

    def _add_scores(
        self,
        score: np.ndarray,
        states: Sequence[States],
        parents: np.ndarray,
        tokens: np.ndarray,
        device: torch.device,
    ) -> List[States]:
        """Let the scorers judge the new ``tokens`` (N, B); changes ``score``, returns their states."""
        parent, token = (torch.from_numpy(x.astype(np.int64)).to(device) for x in (parents, tokens))
        emits = token != BLANK
        after: List[States] = []
        for scorer, s in zip(self._scorers, states):
            added, s = scorer.extend(pick(s, parent), token, emits)
            score[:, :, ops.EXTRA] += added.double().cpu().numpy()
            after.append(s)
        return after
