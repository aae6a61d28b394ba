"""Beam search with any number of tokens per frame (Graves 2012, "Sequence transduction with recurrent neural networks", algorithm 1)."""

import heapq
import logging
import math
from typing import Any, Dict, Iterable, List, NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.transducer.context_table import adjusted_log_probs
from asr_core.decoding.transducer.predictor import States, concatenate, histories

_MAX_TOKENS = 20000  # of one utterance; more means that the model has gone astray
_MAX_EXPANSIONS = 50  # at one frame, for each place of the beam; the same


class _Entry(NamedTuple):
    """A hypothesis on its way: its score and the tokens' frames."""

    score: float
    timestamps: Tuple[int, ...]


_Tokens = Tuple[int, ...]
_Beam = Dict[_Tokens, _Entry]
_Known = Dict[
    _Tokens, Tuple[float, List[Tuple[int, float]]]
]  # log-probability of blank, and the best tokens with theirs


def beam_search(
    model: Any, encoder_out: Tensor, encoder_out_lens: Tensor, *args: Any, **kwargs: Any
) -> List[Hypothesis]:
    """The best token sequence that the search finds; arguments as of :func:`beam_search_nbest`."""
    return [best[0] for best in beam_search_nbest(model, encoder_out, encoder_out_lens, *args, **kwargs)]


@torch.inference_mode()
def beam_search_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
) -> List[List[Hypothesis]]:
    """Algorithm 1 of Graves without its prefix sums, one utterance at a time: exact about tokens per frame, and slow.

    On each frame the best hypothesis that may still emit is taken and expanded, by blank into the next frame's beam and by the
    ``beam_size + 1`` best tokens on the same frame, until the next frame's beam holds ``beam_size`` hypotheses better than any that
    may still emit. Equal token sequences are added up. Where a model emits without end, a frame is left after ``50 * beam_size``
    expansions, and the log says so. The answers are those of the last beam, the one with the highest log-probability per token first
    (the initial context counts).

    Args:
      model: has ``decoder`` and ``joiner``; eager or TorchScript.
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
    found = [search.run(x[:length]) for x, length in zip(projected, encoder_out_lens.tolist())]
    if search.endless:
        logging.warning(
            "the model wanted to emit tokens without end at %d frames; modified_beam_search emits one a frame",
            search.endless,
        )
    return found


class _Search:
    def __init__(self, model: Any, beam_size: int, blank_penalty: float, temperature: float) -> None:
        self._joiner = model.joiner
        self._histories = histories(model)
        self._beam = beam_size
        self._adjust = (self._histories.blank_id, blank_penalty, temperature)
        self._states: Dict[_Tokens, States] = {}  # of the predictor, by the tokens that it sees
        self.endless = 0  # frames where the search was cut short

    def run(self, frames: Tensor) -> List[Hypothesis]:
        """Search projected frames (T, C)."""
        beam: _Beam = {(): _Entry(0.0, ())}
        self._states = {(): self._histories.start(1)}
        for t in range(len(frames)):
            beam = self._frame(frames[t], t, beam)
            if max(map(len, beam)) >= _MAX_TOKENS:
                break
        ranked = sorted(beam, key=lambda k: -beam[k].score / (len(k) + self._histories.initial_length))
        return [
            Hypothesis(list(tokens), list(beam[tokens].timestamps), beam[tokens].score) for tokens in ranked
        ]

    def _seen(self, tokens: _Tokens) -> _Tokens:
        """What the predictor sees of a hypothesis."""
        return tokens if self._histories.horizon is None else tokens[-self._histories.horizon :]

    def _frame(self, frame: Tensor, t: int, emitting: _Beam) -> _Beam:
        """The next frame's beam from ``emitting``, which is used up."""
        known: _Known = {}
        self._evaluate(frame, emitting, known)
        advanced: _Beam = {}
        expansions = 0
        while emitting and expansions < _MAX_EXPANSIONS * self._beam:
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
            if len(better) >= self._beam:
                return self._best(advanced, better)
        self.endless += bool(emitting)
        return self._best(advanced, advanced) if emitting else advanced

    def _best(self, beam: _Beam, among: Iterable[_Tokens]) -> _Beam:
        return {k: beam[k] for k in heapq.nlargest(self._beam, among, key=lambda k: beam[k].score)}

    def _evaluate(self, frame: Tensor, hypotheses: Iterable[_Tokens], known: _Known) -> None:
        """Note the log-probability of blank and of the best tokens after each hypothesis."""
        blank = self._histories.blank_id
        seen = sorted(
            {self._seen(tokens): self._state(tokens) for tokens in hypotheses}.items(),
            key=lambda item: item[0],
        )
        states = concatenate([state for _, state in seen])
        logits = self._joiner(frame, self._histories.output(states), project_input=False)
        log_probs = adjusted_log_probs(logits, *self._adjust)
        values, tokens = log_probs.topk(min(self._beam + 1, log_probs.size(1)), dim=1)
        for (key, _), first, row, ids in zip(
            seen, log_probs[:, blank].tolist(), values.tolist(), tokens.tolist()
        ):
            known[key] = first, [(i, v) for i, v in zip(ids, row) if i != blank]

    def _state(self, tokens: _Tokens) -> States:
        """The predictor's states (1, ...) after a hypothesis whose beginning without its last token was evaluated before."""
        key = self._seen(tokens)
        if key not in self._states:
            before = self._states[self._seen(tokens[:-1])]
            token = torch.tensor([tokens[-1]], device=self._histories.device)
            self._states[key] = self._histories.append(
                before, token, torch.ones_like(token, dtype=torch.bool)
            )
        return self._states[key]


def _add(beam: _Beam, tokens: Tuple[int, ...], entry: _Entry) -> None:
    """Add a hypothesis; equal tokens make one hypothesis with the sum of the probabilities."""
    old = beam.get(tokens)
    if old is not None:
        high, low = max(old.score, entry.score), min(old.score, entry.score)
        total = high if low == -math.inf else high + math.log1p(math.exp(low - high))
        entry = old._replace(score=total)
    beam[tokens] = entry
