"""Prefix beam search with the CTC head, for whole utterances and for streams.

Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using bi-directional
recurrent DNNs", https://arxiv.org/abs/1408.2873, algorithm 1, with language models and contextual
biasing instead of its word-level language model.
"""

from typing import List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.ctc.greedy import BLANK, ctc_log_probs
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.protocol import CtcModel
from asr_core.decoding.scorers.base import Scorer, extend_all
from asr_core.decoding.states import KEY_FACTOR, States
from asr_core.ops.cpu import ctc_prefix as ops
from asr_core.utils.device import to_host


@torch.inference_mode()
def ctc_prefix_beam_search(
    model: CtcModel,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: BeamOptions = BeamOptions(),
    scorers: Sequence[Scorer] = (),
) -> List[List[Hypothesis]]:
    """Search for the most probable token sequences, each the sum of its alignments.

    The probability of a prefix is the sum over all its alignments that stay in the beam; every
    token may extend it. To its logarithm the scorers add their scores of its tokens, from the
    frame on that follows the token.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: prefixes kept per utterance, blank penalty, temperature, and the length of the lists.
      scorers: language models and contextual biasing.

    Returns:
      For each utterance at most ``beam_size`` hypotheses, the best first, no two with the same
      tokens and one at least. Timestamps are those of the best alignment in the beam.
    """
    search = StreamingCtcPrefixSearch(model, opts, scorers)
    streams = [search.new_stream() for _ in range(encoder_out.size(0))]
    search.advance(streams, encoder_out, encoder_out_lens)
    return [stream.nbest(opts.num_best) for stream in streams]


class Origins(NamedTuple):
    """Origins of prefixes: parents, tokens and links (T, B) of
    :func:`asr_core.ops.cpu.ctc_prefix.advance`.
    """

    parents: np.ndarray
    tokens: np.ndarray
    links: np.ndarray


class CtcPrefixStream:
    """The state of prefix beam search in one stream.

    Attributes:
      score, ident: (B, 5), the live prefixes.
      states: the scorers' states, (1, B, ...).
      ending: (B,) the scorers' scores of ending here.
      num_frames: frames consumed.
    """

    def __init__(
        self, score: np.ndarray, ident: np.ndarray, states: Tuple[States, ...], ending: np.ndarray
    ) -> None:
        self.score, self.ident, self.states, self.ending = score, ident, states, ending
        self.num_frames = 0
        self._traces: List[Origins] = []

    def add(self, trace: Origins) -> None:
        """Record the origins of the prefixes of the next frames, (T, B)."""
        self._traces.append(trace)
        self.num_frames += len(trace.parents)

    def hypothesis(self) -> Hypothesis:
        """Return the best hypothesis up to now."""
        return self.nbest(1)[0]

    def nbest(self, num_best: int = 0) -> List[Hypothesis]:
        """Return the best hypotheses up to now; all if ``num_best`` is 0."""
        total = np.logaddexp(self.score[:, ops.BLANK], self.score[:, ops.TOKEN])  # (B,)
        live = int(np.isfinite(total).sum())
        total = (total + self.score[:, ops.EXTRA] + self.ending)[:live]
        order = np.argsort(-total, kind="stable")[: num_best or live]
        if not live:  # a model that computes no numbers
            return [Hypothesis([], [], ops.NEVER)]
        if not self._traces:
            return [Hypothesis([], [], float(total[k])) for k in order]
        self._traces = [Origins._make(map(np.concatenate, zip(*self._traces)))]
        links = self.ident[:, ops.LINK_BLANK : ops.LINK_TOKEN + 1]  # (B, 2)
        ends_in_token = self.score[:, ops.BEST_TOKEN] > self.score[:, ops.BEST_BLANK]
        parents, symbols, origins = self._traces[0]
        out: List[Hypothesis] = []
        for k in order.tolist():
            link = links[k, int(ends_in_token[k])]
            tokens, times = ops.trace_back(parents, symbols, origins, BLANK, k, link)
            out.append(Hypothesis(tokens.tolist(), times.tolist(), float(total[k])))
        return out


class StreamingCtcPrefixSearch:
    """CTC prefix beam search over streams, see
    :class:`~asr_core.decoding.protocol.StreamingSearch`.

    Args:
      model: eager or TorchScript.
      opts: prefixes kept per stream, blank penalty and temperature.
      scorers: language models and contextual biasing.
    """

    def __init__(
        self, model: CtcModel, opts: BeamOptions = BeamOptions(), scorers: Sequence[Scorer] = ()
    ) -> None:
        self._model = model
        self._opts = opts
        self._scorers = scorers

    def new_stream(self) -> CtcPrefixStream:
        """Return the state of a new stream."""
        beam = self._opts.beam_size
        score, ident = np.full((beam, 5), ops.NEVER), np.zeros((beam, 5), dtype=np.int64)
        score[:, ops.EXTRA] = 0.0
        score[0, ops.BLANK] = score[0, ops.BEST_BLANK] = 0.0
        ident[:, ops.LAST] = BLANK
        ident[:, ops.LINK_BLANK :] = -1
        states = tuple(scorer.start(1, beam) for scorer in self._scorers)
        return CtcPrefixStream(score, ident, states, self._endings(states, 1)[0])

    def _endings(self, states: Sequence[States], num: int) -> np.ndarray:
        """Return the scorers' scores of ending in the states of ``num`` streams, (N, B)."""
        total = np.zeros((num, self._opts.beam_size))
        for scorer, s in zip(self._scorers, states):
            total += scorer.finish(s).double().cpu().numpy()
        return total

    @torch.inference_mode()
    def advance(self, streams: List[CtcPrefixStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume the next frames of each stream; ``encoder_out`` is (N, T, C)."""
        if not streams:
            return
        log_probs = ctc_log_probs(self._model, encoder_out, self._opts)
        log_probs = to_host(log_probs).float()  # (N, T, V)
        lens = to_host(encoder_out_lens).numpy()
        prefixes = _Prefixes.of(streams, int(lens.max()))
        states = self._search(prefixes, log_probs.contiguous().numpy(), lens, streams, encoder_out.device)
        endings = self._endings(states, len(streams))  # (N, B)
        for row, stream in enumerate(streams):
            stream.score, stream.ident = prefixes.score[row], prefixes.ident[row]
            stream.ending = endings[row]
            stream.states = tuple(tuple(x[row : row + 1] for x in s) for s in states)
            stream.add(prefixes.trace_of(row, lens[row]))

    def _search(
        self,
        prefixes: "_Prefixes",
        log_probs: np.ndarray,
        lens: np.ndarray,
        streams: Sequence[CtcPrefixStream],
        device: torch.device,
    ) -> Tuple[States, ...]:
        """Search ``log_probs`` (N, T, V), with the scorers between frames; returns their states."""
        if not self._scorers:
            prefixes.advance(log_probs, np.zeros_like(lens), lens)
            return ()
        parts = zip(*(stream.states for stream in streams))
        states = tuple(scorer.join(part) for scorer, part in zip(self._scorers, parts))
        for t in range(prefixes.trace.parents.shape[1]):
            prefixes.advance(log_probs, np.minimum(lens, t), np.minimum(lens, t + 1))
            parent, token = (
                torch.from_numpy(x[:, t].astype(np.int64)).to(device)  # (N, B)
                for x in (prefixes.trace.parents, prefixes.trace.tokens)
            )
            added, states = extend_all(self._scorers, states, parent, token, token != BLANK)
            for more in added:
                prefixes.score[:, :, ops.EXTRA] += more.double().cpu().numpy()
        return states


class _Prefixes(NamedTuple):
    """The live prefixes of N streams, and the origins of those of the next T frames.

    Attributes:
      score, ident: (N, B, 5), see :mod:`asr_core.ops.cpu.ctc_prefix`.
      begin: (N,) frames consumed before.
      trace: (N, T, B).
    """

    score: np.ndarray
    ident: np.ndarray
    begin: np.ndarray
    trace: Origins

    @classmethod
    def of(cls, streams: Sequence[CtcPrefixStream], num_frames: int) -> "_Prefixes":
        """Collect those of ``streams`` before ``num_frames`` frames, in which none changes yet."""
        score = np.stack([s.score for s in streams])
        ident = np.stack([s.ident for s in streams])
        beam = score.shape[1]
        shape = (len(streams), num_frames, beam)
        trace = Origins(
            parents=np.broadcast_to(np.arange(beam, dtype=np.int32), shape).copy(),
            tokens=np.full(shape, BLANK, np.int32),
            links=np.full(shape, -1, np.int64),
        )
        return cls(score, ident, np.array([s.num_frames for s in streams]), trace)

    def advance(self, log_probs: np.ndarray, first: np.ndarray, last: np.ndarray) -> None:
        """Search frames ``first`` (N,) to ``last`` (N,), exclusive, of ``log_probs`` (N, T, V)."""
        parents, tokens, links = self.trace
        ops.advance(
            log_probs,
            first,
            last,
            self.score,
            self.ident,
            self.begin,
            BLANK,
            KEY_FACTOR,
            parents,
            tokens,
            links,
        )

    def trace_of(self, row: int, num_frames: int) -> Origins:
        """Return the origins (T, B) of stream ``row`` in its first ``num_frames`` frames."""
        return Origins._make(x[row, :num_frames] for x in self.trace)
