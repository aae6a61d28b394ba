"""Beam search with any number of tokens per frame (Graves 2012, "Sequence transduction with recurrent neural networks", algorithm 1)."""

import heapq
import math
from typing import Any, Dict, List, NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.decoding.context import ContextTable, adjusted_log_probs
from asr_core.decoding.hypothesis import Hypothesis

_MAX_TOKENS = 20000  # expansions of one utterance; more means that the model has gone astray


class _Entry(NamedTuple):
    """A hypothesis on its way: its score, the tokens' frames, and the predictor's context."""

    score: float
    timestamps: Tuple[int, ...]
    code: int


_Beam = Dict[Tuple[int, ...], _Entry]


@torch.inference_mode()
def beam_search(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
) -> List[Hypothesis]:
    """Algorithm 1 of Graves without its prefix sums, one utterance at a time: exact about tokens per frame, and slow.

    On each frame the best hypothesis that may still emit is taken and expanded, by blank into the next frame's beam and by the
    ``beam_size + 1`` best tokens on the same frame, until the next frame's beam holds ``beam_size`` hypotheses better than any that
    may still emit. Equal token sequences are added up. The answer has the highest log-probability per token (the initial context
    counts).

    Args:
      model: has ``decoder`` (stateless) and ``joiner``; eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      beam_size: hypotheses kept per utterance.
      blank_penalty: subtracted from the logit of blank.
      temperature: logits are divided by it.
    """
    if beam_size < 1:
        raise ValueError(f"the beam must hold at least 1 hypothesis, got {beam_size}")
    search = _Search(model, beam_size, blank_penalty, temperature)
    projected = model.joiner.encoder_proj(encoder_out)
    return [search.run(x[:length]) for x, length in zip(projected, encoder_out_lens.tolist())]


class _Search:
    def __init__(self, model: Any, beam_size: int, blank_penalty: float, temperature: float) -> None:
        self._joiner = model.joiner
        self._table = ContextTable(model)
        self._context_size = int(model.decoder.context_size)
        self._beam = beam_size
        self._adjust = (self._table.blank_id, blank_penalty, temperature)

    def run(self, frames: Tensor) -> Hypothesis:
        """Search projected frames (T, C)."""
        beam: _Beam = {(): _Entry(0.0, (), int(self._table.start(1)))}
        for t in range(len(frames)):
            beam = self._frame(frames[t], t, beam)
            if max(map(len, beam)) >= _MAX_TOKENS:
                break
        tokens = max(beam, key=lambda k: beam[k].score / (len(k) + self._context_size))
        return Hypothesis(list(tokens), list(beam[tokens].timestamps), beam[tokens].score)

    def _frame(self, frame: Tensor, t: int, emitting: _Beam) -> _Beam:
        """The next frame's beam from ``emitting``, which is used up."""
        known: Dict[int, Tuple[float, List[Tuple[int, float]]]] = {}
        self._evaluate(frame, {entry.code for entry in emitting.values()}, known)
        advanced: _Beam = {}
        while emitting:
            tokens = max(emitting, key=lambda k: emitting[k].score)
            entry = emitting.pop(tokens)
            if entry.code not in known:
                self._evaluate(frame, {entry.code}, known)
            blank, others = known[entry.code]
            _add(advanced, tokens, entry._replace(score=entry.score + blank))
            if len(tokens) < _MAX_TOKENS:
                for token, log_prob in others:
                    code = int(self._table.append(torch.tensor(entry.code), torch.tensor(token)))
                    _add(emitting, (*tokens, token), _Entry(entry.score + log_prob, (*entry.timestamps, t), code))
            threshold = max((e.score for e in emitting.values()), default=-math.inf)
            better = [k for k, e in advanced.items() if e.score > threshold]
            if len(better) >= self._beam:
                return {k: advanced[k] for k in heapq.nlargest(self._beam, better, key=lambda k: advanced[k].score)}
        return advanced

    def _evaluate(self, frame: Tensor, codes: set, known: Dict[int, Tuple[float, List[Tuple[int, float]]]]) -> None:
        """Note the log-probability of blank and of the best tokens after each context."""
        blank = self._table.blank_id
        order = sorted(codes)
        logits = self._joiner(frame, self._table(torch.tensor(order, device=frame.device)), project_input=False)
        log_probs = adjusted_log_probs(logits, *self._adjust)
        values, tokens = log_probs.topk(min(self._beam + 1, log_probs.size(1)), dim=1)
        for code, first, row, ids in zip(order, log_probs[:, blank].tolist(), values.tolist(), tokens.tolist()):
            known[code] = first, [(i, v) for i, v in zip(ids, row) if i != blank]


def _add(beam: _Beam, tokens: Tuple[int, ...], entry: _Entry) -> None:
    """Add a hypothesis; equal tokens make one hypothesis with the sum of the probabilities."""
    old = beam.get(tokens)
    if old is not None:
        high, low = max(old.score, entry.score), min(old.score, entry.score)
        total = high if low == -math.inf else high + math.log1p(math.exp(low - high))
        entry = old._replace(score=total)
    beam[tokens] = entry
