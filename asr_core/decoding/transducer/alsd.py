"""Alignment-length synchronous search.

Saon, Tueske and Audhkhasi 2020, "Alignment-length synchronous decoding for RNN transducer",
https://doi.org/10.1109/ICASSP40776.2020.9053040.
"""

import logging
from typing import Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.scorers.base import Scorer, extend_all
from asr_core.decoding.states import States, extend_key, initial_scores, pick, select
from asr_core.decoding.transducer.modified_beam import merge_equal
from asr_core.decoding.transducer.predictor import predictor_states

# An utterance of T frames may have 2 T + 10 tokens: far more than speech has, so that only a model
# that emits without end is cut short.
LABELS_PER_FRAME, FURTHER_LABELS = 2, 10
_NEVER = float("-inf")


@torch.inference_mode()
def alignment_length_sync_search(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: BeamOptions = BeamOptions(),
    scorers: Sequence[Scorer] = (),
    merge: bool = True,
) -> List[List[Hypothesis]]:
    """Search with any number of tokens per frame, batched over utterances and hypotheses.

    All hypotheses of an utterance have the same number of symbols, blanks included, so each is at
    its own frame. A hypothesis is complete with the blank of the last frame; an utterance is done
    as soon as ``beam_size`` complete ones are better than all that the others can still become.
    Scores are not divided by lengths.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: beam size, blank penalty, temperature, and the length of the lists.
      scorers: language models and contextual biasing; what they may still add to an incomplete
        hypothesis is not foreseen.
      merge: add up the probabilities of hypotheses with equal tokens; otherwise each is one
        alignment.

    Returns:
      For each utterance at most ``beam_size`` hypotheses, the best first, no two with the same
      tokens and one at least. None has more than 2 T + 10 tokens; where the best is as long as
      that, the log says so.
    """
    search = _Search(model, opts, merge, scorers)
    lens = encoder_out_lens.to(encoder_out.device)
    complete = search.run(model.joiner.encoder_proj(encoder_out), lens)
    found = search.hypotheses(complete)
    _warn_of_long(found, _most_tokens(lens).tolist())
    return found


def _most_tokens(lens: Tensor) -> Tensor:
    """Return the number of tokens (N,) that utterances of ``lens`` (N,) frames may have."""
    return LABELS_PER_FRAME * lens + FURTHER_LABELS


def _warn_of_long(found: Sequence[Sequence[Hypothesis]], most: Sequence[int]) -> None:
    long = sum(len(best[0].tokens) >= cap for best, cap in zip(found, most))
    if long:
        logging.warning(
            "%d of %d utterances have as many tokens as the search allows and may be cut short",
            long,
            len(found),
        )


class _Live(NamedTuple):
    """Incomplete hypotheses of N utterances, all (N, B, ...); empty places have the score -inf.

    Attributes:
      score: log-probability.
      extra: the sum of the scorers' scores, finite everywhere.
      key: int64, a hash of the tokens.
      length: int64, number of tokens.
      node: int64, the last token in :class:`_Tree`.
      predictor: the predictor's states.
      scorers: the states of each scorer.
    """

    score: Tensor
    extra: Tensor
    key: Tensor
    length: Tensor
    node: Tensor
    predictor: States
    scorers: Tuple[States, ...]

    def of(self, rows: Tensor) -> "_Live":
        """Return the hypotheses of utterances ``rows``, a mask (N,) or indices (n,)."""
        return _Live(
            score=self.score[rows],
            extra=self.extra[rows],
            key=self.key[rows],
            length=self.length[rows],
            node=self.node[rows],
            predictor=select(self.predictor, rows),
            scorers=tuple(select(states, rows) for states in self.scorers),
        )


class _Choice(NamedTuple):
    """The continuations that survive, all (N, B).

    Attributes:
      score, extra: as in :class:`_Live`, ``extra`` still without the new tokens.
      key: hash of the longer sequences.
      parent: the place of the hypothesis that is continued.
      token: blank, or a token.
      emits: true for a token.
    """

    score: Tensor
    extra: Tensor
    key: Tensor
    parent: Tensor
    token: Tensor
    emits: Tensor

    def at(self, places: Tensor) -> "_Choice":
        """Return the continuations at ``places`` (N, K)."""
        return _Choice._make(x.gather(1, places) for x in self)


class _Tree:
    """All tokens found, each with a link to the token before it (-1: none)."""

    def __init__(self) -> None:
        self._parts: List[Tensor] = []
        self._size = 0

    def add(self, before: Tensor, token: Tensor, frame: Tensor) -> Tensor:
        """Add M tokens, (M,) each; returns their numbers (M,)."""
        self._parts.append(torch.stack([before, token, frame]))
        self._size += len(token)
        return torch.arange(self._size - len(token), self._size, device=token.device)

    def lists(self) -> List[List[int]]:
        """Return (link to the token before, token, frame) of each token."""
        return torch.cat(self._parts, dim=1).T.tolist() if self._parts else []


class _Complete(NamedTuple):
    """Complete hypotheses of N utterances, (N, B), the best first; empty places have the score
    -inf.
    """

    score: Tensor
    node: Tensor

    def with_more(self, rows: Tensor, score: Tensor, node: Tensor) -> "_Complete":
        """Add hypotheses and keep the best.

        Args:
          rows: (n,) their utterances.
          score: (n, B), -inf where there is no hypothesis.
          node: (n, B).
        """
        best, index = torch.cat([self.score[rows], score], dim=1).topk(self.score.size(1), dim=1)
        nodes = torch.cat([self.node[rows], node], dim=1).gather(1, index)
        return _Complete(self.score.index_copy(0, rows, best), self.node.index_copy(0, rows, nodes))


class _Search:
    """One search over one batch; arguments as of :func:`alignment_length_sync_search`."""

    def __init__(self, model: Transducer, opts: BeamOptions, merge: bool, scorers: Sequence[Scorer]) -> None:
        self._joiner = model.joiner
        self._predictor = predictor_states(model)
        self._opts = opts
        self._scorers = scorers
        self._merge = merge
        # with merging, a hypothesis can be met twice: by a blank, and by its last token
        wide = 2 * opts.beam_size if merge else opts.beam_size
        self._earlier = torch.ones(wide, wide, dtype=torch.bool, device=self._predictor.device).tril(-1)
        self._tree = _Tree()

    def run(self, x: Tensor, lens: Tensor) -> _Complete:
        """Search projected frames (N, T, J) with lengths (N,)."""
        cap = _most_tokens(lens)
        live = self._start(len(x))
        ending = self._ending(live)
        empty = (lens == 0).unsqueeze(1)
        complete = _Complete((live.score + ending).masked_fill(~empty, _NEVER), live.node)
        rows = (lens > 0).nonzero().squeeze(1)  # (n,), the utterances that go on
        live, step = live.of(rows), 0
        while len(rows):
            live = self._step(x, rows, step, live, lens, cap)
            step += 1
            done = (step - live.length >= lens[rows].unsqueeze(1)) & (live.score > _NEVER)  # (n, B)
            total = live.score + live.extra
            ended = (total + self._ending(live)).masked_fill(~done, _NEVER)
            complete = complete.with_more(rows, ended, live.node)
            live = live._replace(score=live.score.masked_fill(done, _NEVER))
            # scores only fall, apart from the scorers': what is left cannot exceed its present sum
            goes_on = total.masked_fill(done, _NEVER).logsumexp(dim=1) > complete.score[rows, -1]
            if not bool(goes_on.all()):
                rows, live = rows[goes_on], live.of(goes_on)
        return complete

    def _start(self, num: int) -> _Live:
        """Return one empty hypothesis for each of ``num`` utterances."""
        beam, device = self._opts.beam_size, self._predictor.device
        score = initial_scores(num, beam, device)
        zero = torch.zeros(num, beam, dtype=torch.int64, device=device)
        return _Live(
            score=score,
            extra=torch.zeros_like(score),
            key=zero,
            length=zero,
            node=zero - 1,
            predictor=self._predictor.start(num, beam),
            scorers=tuple(scorer.start(num, beam) for scorer in self._scorers),
        )

    def _ending(self, live: _Live) -> Tensor:
        """Return the scorers' scores of ending, (N, B)."""
        total = torch.zeros_like(live.extra)
        for scorer, states in zip(self._scorers, live.scorers):
            total = total + scorer.finish(states)
        return total

    def _step(self, x: Tensor, rows: Tensor, step: int, live: _Live, lens: Tensor, cap: Tensor) -> _Live:
        """Add one more symbol to every hypothesis of utterances ``rows`` (n,).

        Args:
          x: (N, T, J) projected frames.
          rows: (n,) the utterances that go on.
          step: symbols that each hypothesis has.
          live: hypotheses (n, B).
          lens: (N,) frames.
          cap: (N,) tokens that an utterance may have.
        """
        # a hypothesis of s symbols with u tokens is at frame s - u; empty places may lie beyond
        time = torch.minimum(step - live.length, lens[rows].unsqueeze(1) - 1)  # (n, B)
        decoder_out = self._predictor.output(live.predictor)  # (n, B, J)
        logits = self._joiner(x[rows.unsqueeze(1), time], decoder_out, project_input=False)
        log_probs = adjusted_log_probs(logits, self._predictor.blank_id, self._opts)  # (n, B, V)
        full = live.length >= cap[rows].unsqueeze(1)  # (n, B)
        if bool(full.any()):
            log_probs = self._blank_only(log_probs, full)
        return self._grown(live, self._best(live, log_probs), time)

    def _blank_only(self, log_probs: Tensor, full: Tensor) -> Tensor:
        """Return ``log_probs`` (n, B, V) with -inf for tokens after hypotheses ``full`` (n, B)."""
        blank = self._predictor.blank_id
        only_blank = torch.full_like(log_probs, _NEVER)
        only_blank[..., blank] = log_probs[..., blank]
        return torch.where(full.unsqueeze(2), only_blank, log_probs)

    def _best(self, live: _Live, log_probs: Tensor) -> _Choice:
        """Choose the best continuations by ``log_probs`` (n, B, V)."""
        vocab_size = self._predictor.vocab_size
        total = (log_probs + (live.score + live.extra).unsqueeze(2)).flatten(1)  # (n, B * V)
        score, index = total.topk(min(len(self._earlier), total.size(1)), dim=1)
        parent, token = index.div(vocab_size, rounding_mode="floor"), index.remainder(vocab_size)
        emits = token != self._predictor.blank_id
        key = extend_key(live.key.gather(1, parent), token, emits)
        extra = live.extra.gather(1, parent)
        score = score - extra
        choice = _Choice(score=score, extra=extra, key=key, parent=parent, token=token, emits=emits)
        if self._merge:
            size = score.size(1)
            score = merge_equal(score, key, self._earlier[:size, :size])
            best = (score + extra).topk(min(self._opts.beam_size, size), dim=1).indices
            choice = choice._replace(score=score).at(best)
        return choice._replace(emits=choice.emits & (choice.score > _NEVER))

    def _grown(self, live: _Live, choice: _Choice, time: Tensor) -> _Live:
        """Return the hypotheses of ``choice``; ``time`` (n, B) is the frame of each parent."""
        parent, token, emits = choice.parent, choice.token, choice.emits
        added, after = extend_all(self._scorers, live.scorers, parent, token, emits)
        extra = choice.extra
        for more in added:
            extra = extra + more
        node, frame = live.node.gather(1, parent), time.gather(1, parent)
        node[emits] = self._tree.add(node[emits], token[emits], frame[emits])
        return _Live(
            score=choice.score,
            extra=extra,
            key=choice.key,
            length=live.length.gather(1, parent) + emits,
            node=node,
            predictor=self._predictor.append(pick(live.predictor, parent), token, emits),
            scorers=after,
        )

    def hypotheses(self, complete: _Complete) -> List[List[Hypothesis]]:
        """Return the best of the complete hypotheses (N, B)."""
        most = self._opts.num_best
        tree = self._tree.lists()
        out: List[List[Hypothesis]] = []
        for scores, nodes in zip(complete.score.tolist(), complete.node.tolist()):
            # without merging there may be several alignments of some tokens: the best is first
            found: Dict[Tuple[int, ...], Hypothesis] = {}
            for score, node in zip(scores, nodes):
                if len(found) == most > 0:
                    break
                if score > _NEVER:
                    tokens, frames = _path(tree, node)
                    found.setdefault(tuple(tokens), Hypothesis(tokens, frames, score))
            # a model that computes no numbers completes nothing
            out.append(list(found.values()) or [Hypothesis([], [], _NEVER)])
        return out


def _path(tree: List[List[int]], node: int) -> Tuple[List[int], List[int]]:
    """Return the tokens up to ``node`` and their frames."""
    tokens, frames = [], []
    while node >= 0:
        node, token, frame = tree[node]
        tokens.append(token)
        frames.append(frame)
    return tokens[::-1], frames[::-1]
