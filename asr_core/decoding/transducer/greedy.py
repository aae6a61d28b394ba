"""Greedy search: the best token of each frame."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam_options import GreedyOptions
from asr_core.decoding.hypothesis import GreedyAnswer, Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.scorers.context_graph import ContextGraph, PhraseBoosts
from asr_core.decoding.states import States, concatenate, select
from asr_core.decoding.transducer.frame_synchronous import Path
from asr_core.decoding.transducer.predictor import predictor_states

_WINDOW = 8  # frames looked at in one round; more waste arithmetic, fewer need more rounds


@torch.inference_mode()
def greedy_search(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: GreedyOptions = GreedyOptions(),
    *,
    phrases: Optional[ContextGraph] = None,
) -> List[Hypothesis]:
    """Search a whole batch for the best token at every frame.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: tokens per frame, blank penalty and temperature.
      phrases: for contextual biasing: a token that begins or continues one gets half of what it
        earns. Nothing is taken back, and blank stays as it is.
    """
    search = StreamingGreedySearch(model, opts, phrases=phrases)
    streams = [search.new_stream() for _ in range(encoder_out.size(0))]
    search.advance(streams, encoder_out, encoder_out_lens)
    return [s.hypothesis() for s in streams]


class GreedyStream(GreedyAnswer):
    """The state of greedy search in one stream.

    Attributes:
      predictor: the predictor's states, (1, ...).
      phrase: (1,) the state in the phrases; None without phrases.
    """

    def __init__(self, predictor: States, phrase: Optional[Tensor]) -> None:
        super().__init__()
        self.predictor = predictor
        self.phrase = phrase


class StreamingGreedySearch:
    """Greedy search over streams, see :class:`~asr_core.decoding.protocol.StreamingSearch`.

    Arguments as of :func:`greedy_search`.
    """

    def __init__(
        self,
        model: Transducer,
        opts: GreedyOptions = GreedyOptions(),
        *,
        phrases: Optional[ContextGraph] = None,
    ) -> None:
        self._joiner = model.joiner
        self._predictor = predictor_states(model)
        self._opts = opts
        self._boosts: Optional[PhraseBoosts] = None
        if phrases is not None:
            self._boosts = PhraseBoosts(phrases, self._predictor.vocab_size, self._predictor.device)

    def new_stream(self) -> GreedyStream:
        """Return the state of a new stream."""
        phrase = self._boosts.start(1) if self._boosts is not None else None
        return GreedyStream(self._predictor.start(1), phrase)

    @torch.inference_mode()
    def advance(self, streams: List[GreedyStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume the next frames of each stream; ``encoder_out`` is (N, T, C)."""
        if not streams:
            return
        lens = encoder_out_lens.to(self._predictor.device)
        predictor = concatenate([s.predictor for s in streams])
        score = torch.zeros(len(streams), device=lens.device)
        phrase: Optional[Tensor] = None
        if self._boosts is not None:
            phrase = torch.cat([s.phrase for s in streams if s.phrase is not None])
        found = self._run(self._joiner.encoder_proj(encoder_out), lens, predictor, score, phrase)
        num_frames, scores = lens.tolist(), score.tolist()
        for i, (stream, (tokens, frames)) in enumerate(zip(streams, found)):
            stream.predictor = tuple(s[i : i + 1] for s in predictor)
            stream.phrase = phrase[i : i + 1] if phrase is not None else None
            stream.tokens += tokens
            stream.timestamps += [stream.num_frames + t for t in frames]
            stream.log_prob += scores[i]
            stream.num_frames += num_frames[i]

    def _run(
        self, x: Tensor, lens: Tensor, predictor: States, score: Tensor, phrase: Optional[Tensor]
    ) -> List[Path]:
        """Search projected frames ``x`` (N, T, J) with lengths ``lens`` (N,).

        The context only changes where a token is emitted, and most frames emit none. So each round
        looks at the next W frames of every utterance in its present context and jumps behind the
        first token it finds. ``predictor`` (N, ...), ``score`` (N,) and ``phrase`` (N,) are brought
        up to date in place.

        Returns the tokens and their frames for each utterance.
        """
        blank, max_sym = self._predictor.blank_id, self._opts.max_sym_per_frame
        window = torch.arange(_WINDOW, device=x.device)  # (W,)
        position = torch.zeros_like(lens)  # next frame of each utterance
        repeats = torch.zeros_like(lens)  # tokens that it has given already
        rounds: List[Tensor] = []
        rows = (lens > 0).nonzero().squeeze(1)  # (n,), the utterances that go on
        while len(rows):
            time = position[rows].unsqueeze(1) + window  # (n, W)
            beyond = time >= lens[rows].unsqueeze(1)
            frames = x[rows.unsqueeze(1), time.clamp(max=x.size(1) - 1)]  # (n, W, J)
            here = select(predictor, rows)
            decoder_out = self._predictor.output(here).unsqueeze(1)  # (n, 1, J)
            logits = self._joiner(frames, decoder_out, project_input=False)  # (n, W, V)
            log_probs = adjusted_log_probs(logits, blank, self._opts)
            if self._boosts is not None and phrase is not None:
                log_probs += self._boosts(phrase[rows]).unsqueeze(1)
            best, token = log_probs.max(dim=-1)  # (n, W)
            emits = (token != blank) & ~beyond
            found, first = emits.max(dim=1)  # (n,); of equal maxima the first
            first = torch.where(found, first, _WINDOW - 1)
            score[rows] += best.masked_fill(beyond | (window > first.unsqueeze(1)), 0).sum(dim=1)
            emitted = token.gather(1, first.unsqueeze(1)).squeeze(1)  # (n,)
            at = position[rows] + first
            for state, new in zip(predictor, self._predictor.append(here, emitted, found)):
                state[rows] = new
            if self._boosts is not None and phrase is not None:
                phrase[rows] = self._boosts.advance(phrase[rows], emitted, found)
            count = torch.where(found, torch.where(first == 0, repeats[rows], 0) + 1, max_sym)
            leave = count >= max_sym
            position[rows] = at + leave
            repeats[rows] = torch.where(leave, 0, count)
            rounds.append(torch.stack([rows, emitted, at])[:, found])
            rows = rows[position[rows] < lens[rows]]
        return _collect(rounds, len(lens))


def _collect(rounds: List[Tensor], num: int) -> List[Path]:
    """Convert columns (utterance, token, frame), (3, n) per round in order of time, to paths."""
    lists: List[Tuple[List[int], List[int]]] = [([], []) for _ in range(num)]
    if rounds:
        for row, token, frame in torch.cat(rounds, dim=1).T.tolist():
            lists[row][0].append(token)
            lists[row][1].append(frame)
    return lists
