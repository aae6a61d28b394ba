"""Alignment-length synchronous search (Saon, Tueske and Audhkhasi 2020, "Alignment-length synchronous decoding for RNN transducer")."""

import logging
from typing import Any, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.scorers.token_scorers import Scorer, States, pick
from asr_core.decoding.transducer.context_table import adjusted_log_probs
from asr_core.decoding.transducer.modified_beam import KEY_FACTOR, merge_equal
from asr_core.decoding.transducer.predictor import histories, select

LABELS_PER_FRAME, FURTHER_LABELS = 2, 10  # an utterance of T frames may have 2 T + 10 tokens
_NEVER = float("-inf")


def alignment_length_sync_search(
    model: Any, encoder_out: Tensor, encoder_out_lens: Tensor, *args: Any, **kwargs: Any
) -> List[Hypothesis]:
    """The most probable token sequence that the search finds; arguments as of :func:`alignment_length_sync_nbest`."""
    return [
        best[0] for best in alignment_length_sync_nbest(model, encoder_out, encoder_out_lens, *args, **kwargs)
    ]


@torch.inference_mode()
def alignment_length_sync_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    merge: bool = True,
    scorers: Sequence[Scorer] = (),
) -> List[List[Hypothesis]]:
    """Beam search with any number of tokens per frame, batched over utterances and hypotheses.

    All hypotheses of an utterance have the same number of symbols, blanks included, so each is at its own frame. A hypothesis is
    complete with the blank of the last frame; an utterance is done as soon as ``beam_size`` complete ones are better than all that the
    others can still become. Scores are not divided by lengths.

    Args:
      model: has ``decoder`` and ``joiner``; eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      beam_size: hypotheses kept per utterance, and complete ones returned.
      blank_penalty: subtracted from the logit of blank.
      temperature: logits are divided by it.
      merge: add up the probabilities of hypotheses with equal tokens; otherwise each is one alignment.
      scorers: language models and the like; what they may still give to an incomplete hypothesis is not foreseen.

    Returns:
      For each utterance at most ``beam_size`` hypotheses, the best first, no two with the same tokens. None has more than
      2 T + 10 tokens; where the best is as long as that, the log says so.
    """
    if beam_size < 1:
        raise ValueError(f"the beam must hold at least 1 hypothesis, got {beam_size}")
    search = _Search(model, beam_size, (blank_penalty, temperature), merge, scorers)
    lens = encoder_out_lens.to(encoder_out.device)
    return search.run(model.joiner.encoder_proj(encoder_out), lens)


class _Live(NamedTuple):
    """Incomplete hypotheses of n utterances, all (n, B, ...); places that hold none have the score -inf.

    Attributes:
      score: log-probability.
      extra: what the scorers gave, finite everywhere.
      key: int64, a hash of the tokens.
      length: int64, number of tokens.
      node: int64, the last token in :class:`_Tree`.
      history: the predictor's states.
      scorers: the states of each scorer.
    """

    score: Tensor
    extra: Tensor
    key: Tensor
    length: Tensor
    node: Tensor
    history: States
    scorers: Tuple[States, ...]

    def of(self, rows: Tensor) -> "_Live":
        """Those of the utterances where ``rows`` (n,) is true."""
        return _Live(
            *select(self[:5], rows),
            select(self.history, rows),
            tuple(select(states, rows) for states in self.scorers),
        )


class _Tree:
    """Tokens found, each with the token before it; -1 is none."""

    def __init__(self) -> None:
        self._parts: List[Tensor] = []
        self._size = 0

    def add(self, before: Tensor, token: Tensor, frame: Tensor) -> Tensor:
        """Numbers (M,) of M new tokens."""
        self._parts.append(torch.stack([before, token, frame]))
        self._size += len(token)
        return torch.arange(self._size - len(token), self._size, device=token.device)

    def lists(self) -> List[List[int]]:
        """For each token the one before, itself, its frame."""
        return torch.cat(self._parts, dim=1).T.tolist() if self._parts else []


class _Complete(NamedTuple):
    """Complete hypotheses of N utterances, (N, B), the best first; empty places have the score -inf."""

    score: Tensor
    node: Tensor

    def with_more(self, rows: Tensor, score: Tensor, node: Tensor) -> "_Complete":
        """Add those of utterances ``rows`` (n,), (n, B) with -inf where there is none; the best stay."""
        best, index = torch.cat([self.score[rows], score], dim=1).topk(self.score.size(1), dim=1)
        nodes = torch.cat([self.node[rows], node], dim=1).gather(1, index)
        return _Complete(self.score.index_copy(0, rows, best), self.node.index_copy(0, rows, nodes))


class _Search:
    def __init__(
        self, model: Any, beam: int, adjustments: Tuple[float, float], merge: bool, scorers: Sequence[Scorer]
    ) -> None:
        self._joiner = model.joiner
        self._histories = histories(model)
        self._beam = beam
        self._adjust = (self._histories.blank_id, *adjustments)
        self._scorers = scorers
        self._merge = merge
        wide = 2 * beam if merge else beam  # a hypothesis can be met twice: by a blank, and by its last token
        self._earlier = torch.ones(wide, wide, dtype=torch.bool, device=self._histories.device).tril(-1)
        self._tree = _Tree()

    def run(self, x: Tensor, lens: Tensor) -> List[List[Hypothesis]]:
        """Search projected frames (N, T, J)."""
        cap = LABELS_PER_FRAME * lens + FURTHER_LABELS
        live = self._start(len(x))
        ending = self._ending(live)
        empty = (lens == 0).unsqueeze(1)
        complete = _Complete((live.score + ending).masked_fill(~empty, _NEVER), live.node)
        rows = (lens > 0).nonzero().squeeze(1)
        live, step = live.of(rows), 0
        while len(rows):
            live = self._step(x, rows, step, live, lens, cap)
            step += 1
            done = (step - live.length >= lens[rows].unsqueeze(1)) & (live.score > _NEVER)
            total = live.score + live.extra
            complete = complete.with_more(
                rows, (total + self._ending(live)).masked_fill(~done, _NEVER), live.node
            )
            live = live._replace(score=live.score.masked_fill(done, _NEVER))
            goes_on = total.masked_fill(done, _NEVER).logsumexp(dim=1) > complete.score[rows, -1]
            if not bool(goes_on.all()):
                rows, live = rows[goes_on], live.of(goes_on)
        return self._answers(complete, cap.tolist())

    def _start(self, num: int) -> _Live:
        device = self._histories.device
        score = torch.full((num, self._beam), _NEVER, device=device)
        score[:, 0] = 0
        zero = torch.zeros(num, self._beam, dtype=torch.int64, device=device)
        states = tuple(scorer.start(num, self._beam) for scorer in self._scorers)
        return _Live(
            score,
            torch.zeros_like(score),
            zero,
            zero,
            zero - 1,
            self._histories.start(num, self._beam),
            states,
        )

    def _ending(self, live: _Live) -> Tensor:
        """What the scorers say of ending (n, B)."""
        return sum(
            (scorer.finish(s) for scorer, s in zip(self._scorers, live.scorers)), torch.zeros_like(live.extra)
        )

    def _step(self, x: Tensor, rows: Tensor, step: int, live: _Live, lens: Tensor, cap: Tensor) -> _Live:
        """One more symbol for every hypothesis of utterances ``rows`` (n,)."""
        blank, vocab_size = self._histories.blank_id, self._histories.vocab_size
        time = torch.minimum(
            step - live.length, lens[rows].unsqueeze(1) - 1
        )  # places without a hypothesis may lie beyond
        logits = self._joiner(
            x[rows.unsqueeze(1), time], self._histories.output(live.history), project_input=False
        )
        log_probs = adjusted_log_probs(logits, *self._adjust)
        full = live.length >= cap[rows].unsqueeze(1)
        if bool(full.any()):
            only_blank = torch.full_like(log_probs, _NEVER)
            only_blank[..., blank] = log_probs[..., blank]
            log_probs = torch.where(full.unsqueeze(2), only_blank, log_probs)
        total = (log_probs + (live.score + live.extra).unsqueeze(2)).flatten(1)
        score, index = total.topk(min(len(self._earlier), total.size(1)), dim=1)
        parent, token = index.div(vocab_size, rounding_mode="floor"), index.remainder(vocab_size)
        emits = token != blank
        key = live.key.gather(1, parent)
        key = torch.where(emits, torch.add(token, key, alpha=KEY_FACTOR) + 1, key)
        score, extra = score - live.extra.gather(1, parent), live.extra.gather(1, parent)
        if self._merge:
            score = merge_equal(score, key, self._earlier[: score.size(1), : score.size(1)])
            best = (score + extra).topk(min(self._beam, score.size(1)), dim=1).indices
            score, extra, key, parent, token, emits = (
                v.gather(1, best) for v in (score, extra, key, parent, token, emits)
            )
        return self._grown(live, score, extra, key, parent, token, emits & (score > _NEVER), time)

    def _grown(
        self,
        live: _Live,
        score: Tensor,
        extra: Tensor,
        key: Tensor,
        parent: Tensor,
        token: Tensor,
        emits: Tensor,
        time: Tensor,
    ) -> _Live:
        """The hypotheses chosen, their ``extra`` still without what the scorers say of their new tokens."""
        after: List[States] = []
        for scorer, states in zip(self._scorers, live.scorers):
            added, states = scorer.extend(pick(states, parent), token, emits)
            extra = extra + added
            after.append(states)
        node, frame = live.node.gather(1, parent), time.gather(1, parent)
        node[emits] = self._tree.add(node[emits], token[emits], frame[emits])
        history = self._histories.append(pick(live.history, parent), token, emits)
        return _Live(score, extra, key, live.length.gather(1, parent) + emits, node, history, tuple(after))

    def _answers(self, complete: _Complete, cap: List[int]) -> List[List[Hypothesis]]:
        tree = self._tree.lists()
        out: List[List[Hypothesis]] = []
        for scores, nodes in zip(complete.score.tolist(), complete.node.tolist()):
            found = {}
            for score, node in zip(scores, nodes):
                tokens, frames = [], []
                while node >= 0 and score > _NEVER:
                    node, token, frame = tree[node]
                    tokens.append(token)
                    frames.append(frame)
                if score > _NEVER:  # without merging, alignments of the same tokens: the best comes first
                    found.setdefault(tuple(tokens), Hypothesis(tokens[::-1], frames[::-1], score))
            out.append(
                list(found.values()) or [Hypothesis([], [], _NEVER)]
            )  # nothing where a model computes no numbers
        long = sum(len(best[0].tokens) >= most for best, most in zip(out, cap))
        if long:
            logging.warning(
                "%d of %d utterances have as many tokens as the search allows and may be cut short",
                long,
                len(out),
            )
        return out
