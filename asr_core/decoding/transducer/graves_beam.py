"""Beam search with any number of tokens per frame.

Graves 2012, "Sequence transduction with recurrent neural networks", algorithm 1,
https://arxiv.org/abs/1211.3711.
"""

import heapq
import logging
import math
from typing import Dict, Iterable, List, NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.states import States, concatenate
from asr_core.decoding.transducer.predictor import predictor_states

_MAX_TOKENS = 20000  # of one utterance; more means that the model has gone astray
_MAX_EXPANSIONS = 50  # at one frame, for each place of the beam; the same


class _Entry(NamedTuple):
    """A live hypothesis: its score and the frames of its tokens."""

    score: float
    timestamps: Tuple[int, ...]


_Tokens = Tuple[int, ...]
_Beam = Dict[_Tokens, _Entry]


class _Continuations(NamedTuple):
    """The possible continuations of a context at some frame.

    Attributes:
      blank: log-probability of blank.
      tokens: the best tokens with their log-probabilities.
    """

    blank: float
    tokens: List[Tuple[int, float]]


@torch.inference_mode()
def graves_beam_search(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: BeamOptions = BeamOptions(),
) -> List[List[Hypothesis]]:
    """Search one utterance at a time: exact about tokens per frame, and slow.

    This is algorithm 1 of Graves without its prefix sums. On each frame the best hypothesis that
    may still emit is taken and expanded, by blank into the next frame's beam and by the
    ``beam_size + 1`` best tokens on the same frame, until the next frame's beam holds ``beam_size``
    hypotheses better than any that may still emit. Equal token sequences are added up. Where a
    model emits without end, a frame is left after ``50 * beam_size`` expansions, and the log says
    so.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: beam size, blank penalty, temperature, and the length of the lists.

    Returns:
      For each utterance the hypotheses of its last beam, no two with the same tokens. The first has
      the highest log-probability per token, the initial context included.
    """
    search = _Search(model, opts)
    projected = model.joiner.encoder_proj(encoder_out)  # (N, T, J)
    found = [search.run(x[:length]) for x, length in zip(projected, encoder_out_lens.tolist())]
    if search.endless:
        logging.warning(
            "the model wanted to emit tokens without end at %d frames; "
            "modified_beam_search emits one a frame",
            search.endless,
        )
    return [hypotheses[: opts.num_best or None] for hypotheses in found]


class _Search:
    """The search, one utterance after the other.

    Attributes:
      endless: frames where the search was cut short.
    """

    def __init__(self, model: Transducer, opts: BeamOptions) -> None:
        self._joiner = model.joiner
        self._predictor = predictor_states(model)
        self._opts = opts
        self._states: Dict[_Tokens, States] = {}  # of the predictor, by the tokens that it sees
        self.endless = 0

    def run(self, frames: Tensor) -> List[Hypothesis]:
        """Search projected frames (T, J)."""
        beam: _Beam = {(): _Entry(0.0, ())}
        self._states = {(): self._predictor.start(1)}
        for t in range(len(frames)):
            beam = self._frame(frames[t], t, beam)
            if max(map(len, beam)) >= _MAX_TOKENS:
                break
        initial = self._predictor.initial_length
        ranked = sorted(beam.items(), key=lambda item: -item[1].score / (len(item[0]) + initial))
        return [Hypothesis(list(tokens), list(e.timestamps), e.score) for tokens, e in ranked]

    def _seen(self, tokens: _Tokens) -> _Tokens:
        """Return the tokens of a hypothesis that the predictor sees."""
        return tokens if self._predictor.horizon is None else tokens[-self._predictor.horizon :]

    def _frame(self, frame: Tensor, t: int, emitting: _Beam) -> _Beam:
        """Build the next frame's beam from ``emitting``, which is consumed, and frame t (J,)."""
        beam_size = self._opts.beam_size
        known: Dict[_Tokens, _Continuations] = {}
        self._evaluate(frame, emitting, known)
        advanced: _Beam = {}
        expansions = 0
        while emitting and expansions < _MAX_EXPANSIONS * beam_size:
            expansions += 1
            tokens = max(emitting, key=lambda k: emitting[k].score)
            entry = emitting.pop(tokens)
            if self._seen(tokens) not in known:
                self._evaluate(frame, [tokens], known)
            blank, others = known[self._seen(tokens)]
            _add(advanced, tokens, entry._replace(score=entry.score + blank))
            if len(tokens) < _MAX_TOKENS:
                for token, log_prob in others:
                    _add(emitting, (*tokens, token), _Entry(entry.score + log_prob, (*entry.timestamps, t)))
            threshold = max((e.score for e in emitting.values()), default=-math.inf)
            better = [k for k, e in advanced.items() if e.score > threshold]
            if len(better) >= beam_size:
                return self._best(advanced, better)
        self.endless += bool(emitting)
        return self._best(advanced, advanced) if emitting else advanced

    def _best(self, beam: _Beam, among: Iterable[_Tokens]) -> _Beam:
        """Return the ``beam_size`` best of the hypotheses ``among`` those of ``beam``."""
        best = heapq.nlargest(self._opts.beam_size, among, key=lambda k: beam[k].score)
        return {k: beam[k] for k in best}

    def _evaluate(
        self, frame: Tensor, hypotheses: Iterable[_Tokens], known: Dict[_Tokens, _Continuations]
    ) -> None:
        """Store in ``known`` the continuations of each hypothesis at a projected frame (J,)."""
        blank = self._predictor.blank_id
        seen = {self._seen(tokens): self._state(tokens) for tokens in hypotheses}
        keys = sorted(seen)
        decoder_out = self._predictor.output(concatenate([seen[key] for key in keys]))  # (M, J)
        logits = self._joiner(frame, decoder_out, project_input=False)  # (M, V)
        log_probs = adjusted_log_probs(logits, blank, self._opts)
        values, tokens = log_probs.topk(min(self._opts.beam_size + 1, log_probs.size(1)), dim=1)
        rows = zip(keys, log_probs[:, blank].tolist(), values.tolist(), tokens.tolist())
        for key, of_blank, row, ids in rows:
            known[key] = _Continuations(of_blank, [(i, v) for i, v in zip(ids, row) if i != blank])

    def _state(self, tokens: _Tokens) -> States:
        """Return the predictor's states (1, ...) after a hypothesis.

        The hypothesis without its last token was evaluated before.
        """
        key = self._seen(tokens)
        if key not in self._states:
            before = self._states[self._seen(tokens[:-1])]
            token = torch.tensor([tokens[-1]], device=self._predictor.device)
            grows = torch.ones_like(token, dtype=torch.bool)
            self._states[key] = self._predictor.append(before, token, grows)
        return self._states[key]


def _add(beam: _Beam, tokens: _Tokens, entry: _Entry) -> None:
    """Add a hypothesis; equal tokens make one hypothesis with the sum of the probabilities."""
    old = beam.get(tokens)
    if old is not None:
        high, low = max(old.score, entry.score), min(old.score, entry.score)
        total = high if low == -math.inf else high + math.log1p(math.exp(low - high))
        entry = old._replace(score=total)
    beam[tokens] = entry
