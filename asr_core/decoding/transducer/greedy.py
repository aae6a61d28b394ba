"""Greedy search: the best token of each frame."""

from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import GreedyAnswer, Hypothesis
from asr_core.decoding.scorers.context_graph import ContextGraph, PhraseBoosts
from asr_core.decoding.transducer.context_table import adjusted_log_probs
from asr_core.decoding.transducer.predictor import States, concatenate, histories, select

_WINDOW = 8  # frames looked at in one round; more waste arithmetic, fewer need more rounds


@torch.inference_mode()
def greedy_search(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    max_sym_per_frame: int = 1,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    phrases: Optional[ContextGraph] = None,
) -> List[Hypothesis]:
    """Take the best token at every frame, for a whole batch at a time.

    Args:
      model: has ``decoder`` and ``joiner``; eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      max_sym_per_frame: after a token other than blank the same frame is asked again, up to this many tokens.
      blank_penalty: subtracted from the logit of blank.
      temperature: logits are divided by it.
      phrases: to favour; a token that begins or continues one gets its score, nothing is taken back, and blank stays as it is.
    """
    search = StreamingGreedySearch(model, max_sym_per_frame, blank_penalty, temperature, phrases)
    streams = [search.new_stream() for _ in range(encoder_out.size(0))]
    search.advance(streams, encoder_out, encoder_out_lens)
    return [s.hypothesis() for s in streams]


class GreedyStream(GreedyAnswer):
    """What greedy search remembers of one stream: the predictor's state, and (1,) where it is in the phrases."""

    def __init__(self, history: States, phrase: Optional[Tensor]) -> None:
        super().__init__()
        self.history = history
        self.phrase = phrase


class StreamingGreedySearch:
    """Greedy search over streams that arrive chunk by chunk; any streams may be advanced together.

    Arguments as of :func:`greedy_search`.
    """

    def __init__(
        self,
        model: Any,
        max_sym_per_frame: int = 1,
        blank_penalty: float = 0.0,
        temperature: float = 1.0,
        phrases: Optional[ContextGraph] = None,
    ) -> None:
        if max_sym_per_frame < 1:
            raise ValueError(f"max_sym_per_frame must be at least 1, got {max_sym_per_frame}")
        self._joiner = model.joiner
        self._histories = histories(model)
        self._max_sym = max_sym_per_frame
        self._blank_penalty = blank_penalty
        self._temperature = temperature
        self._boosts = (
            PhraseBoosts(phrases, self._histories.vocab_size, self._histories.device)
            if phrases is not None
            else None
        )

    def new_stream(self) -> GreedyStream:
        """The state of a stream that has not begun."""
        return GreedyStream(
            self._histories.start(1), self._boosts.start(1) if self._boosts is not None else None
        )

    @torch.inference_mode()
    def advance(self, streams: List[GreedyStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``.

        Args:
          streams: N of them, changed in place.
          encoder_out: (N, T, C), not projected.
          encoder_out_lens: (N,) int64.
        """
        if not streams:
            return
        lens = encoder_out_lens.to(self._histories.device)
        history = concatenate([s.history for s in streams])
        score = torch.zeros(len(streams), device=lens.device)
        phrase = torch.cat([s.phrase for s in streams]) if self._boosts is not None else None
        emissions = self._run(self._joiner.encoder_proj(encoder_out), lens, history, score, phrase)
        num_frames = lens.tolist()
        for i, (stream, *new_history, new_score) in enumerate(
            zip(streams, *(s.split(1) for s in history), score.tolist())
        ):
            tokens, frames = emissions[i]
            stream.history = tuple(new_history)
            stream.phrase = phrase[i : i + 1] if phrase is not None else None
            stream.tokens += tokens
            stream.timestamps += [stream.num_frames + t for t in frames]
            stream.log_prob += new_score
            stream.num_frames += num_frames[i]

    def _run(
        self, x: Tensor, lens: Tensor, history: States, score: Tensor, phrase: Optional[Tensor]
    ) -> List[Tuple[List[int], List[int]]]:
        """Search projected frames ``x`` (N, T, J); brings ``history`` (N, ...), ``score`` (N,) and ``phrase`` (N,) up to date.

        The context only changes where a token is emitted, and most frames emit none. So each round looks at the next few
        frames of every utterance under its present context and jumps behind the first token it finds.
        Returns the tokens and their frames for each utterance.
        """
        blank = self._histories.blank_id
        window = torch.arange(_WINDOW, device=x.device)
        position, repeats = (
            torch.zeros_like(lens),
            torch.zeros_like(lens),
        )  # next frame, tokens it has given already
        rounds: List[Tensor] = []
        rows = (lens > 0).nonzero().squeeze(1)
        while len(rows):
            time = position[rows].unsqueeze(1) + window  # (n, W)
            beyond = time >= lens[rows].unsqueeze(1)
            frames = x[rows.unsqueeze(1), time.clamp(max=x.size(1) - 1)]
            here = select(history, rows)
            logits = self._joiner(frames, self._histories.output(here).unsqueeze(1), project_input=False)
            log_probs = adjusted_log_probs(logits, blank, self._blank_penalty, self._temperature)
            if self._boosts is not None and phrase is not None:
                log_probs += self._boosts(phrase[rows]).unsqueeze(1)
            best, token = log_probs.max(dim=-1)
            emits = (token != blank) & ~beyond
            found, first = emits.max(dim=1)  # the first of equal maxima
            first = torch.where(found, first, _WINDOW - 1)
            score[rows] += best.masked_fill(beyond | (window > first.unsqueeze(1)), 0).sum(dim=1)
            emitted = token.gather(1, first.unsqueeze(1)).squeeze(1)
            at = position[rows] + first
            for state, new in zip(history, self._histories.append(here, emitted, found)):
                state[rows] = new
            if self._boosts is not None and phrase is not None:
                phrase[rows] = self._boosts.advance(phrase[rows], emitted, found)
            count = torch.where(found, torch.where(first == 0, repeats[rows], 0) + 1, self._max_sym)
            leave = count >= self._max_sym
            position[rows] = at + leave
            repeats[rows] = torch.where(leave, 0, count)
            rounds.append(torch.stack([rows, emitted, at])[:, found])
            rows = rows[position[rows] < lens[rows]]
        return _collect(rounds, len(lens))


def _collect(rounds: List[Tensor], num: int) -> List[Tuple[List[int], List[int]]]:
    """Turn (utterance, token, frame) columns in the order of emission, (3, n) a round, into lists per utterance."""
    lists: List[Tuple[List[int], List[int]]] = [([], []) for _ in range(num)]
    if rounds:
        for row, token, frame in torch.cat(rounds, dim=1).T.tolist():
            lists[row][0].append(token)
            lists[row][1].append(frame)
    return lists
