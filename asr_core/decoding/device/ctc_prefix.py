"""CTC prefix beam search on the device.

The frames of :mod:`asr_core.ops.cpu.ctc_prefix`, whose columns the tensors have, for all utterances
at once and with fixed shapes. A prefix can grow by few tokens: of B prefixes that live on, at most
B come from one, which has at most B - 1 children that live already; so the 2 B + 1 best tokens of a
frame, blank and the prefix's own last token among them, are all that matter.
"""

from typing import Callable, Hashable, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.ctc.greedy import BLANK, ctc_log_probs
from asr_core.decoding.ctc.prefix_beam import CtcPrefixStream, Origins
from asr_core.decoding.device.frame_loop import FrameLoop, Room, room_for
from asr_core.decoding.device.replay import kept
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.protocol import CtcModel
from asr_core.decoding.scorers.base import Scorer, extend_all
from asr_core.decoding.states import KEY_FACTOR, States
from asr_core.ops.cpu import ctc_prefix as columns

_NEVER = columns.NEVER


@torch.inference_mode()
def ctc_prefix_beam_search_on_device(
    model: CtcModel,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: BeamOptions = BeamOptions(),
    scorers: Callable[[int], Sequence[Scorer]] = lambda vocab_size: (),
    scorers_key: Hashable = (),
) -> List[List[Hypothesis]]:
    """Search as :func:`~asr_core.decoding.ctc.prefix_beam.ctc_prefix_beam_search` does.

    Args:
      model, encoder_out, encoder_out_lens, opts: see there.
      scorers: makes them, of the number of tokens; all have fixed shapes, and none waits for the
        device.
      scorers_key: differs where the scorers do.
    """
    log_probs = ctc_log_probs(model, encoder_out, opts).float()  # (N, T, V)
    vocab_size = log_probs.size(2)
    best = log_probs.topk(min(vocab_size, 2 * opts.beam_size + 1)).indices  # (N, T, K)
    x = torch.cat([log_probs, best.float()], dim=2)  # ids below 2^24 are exact
    room = room_for(x)
    key = ("ctc prefix", opts.beam_size, vocab_size, scorers_key, room.rows, room.frames, x.device)
    loop = kept(
        None, key, lambda: PrefixLoop(CtcPrefixes(opts.beam_size, vocab_size, scorers(vocab_size)), room)
    )
    return loop(x, encoder_out_lens, opts.num_best)


class PrefixState(NamedTuple):
    """The live prefixes of N utterances, the best first.

    Attributes:
      score: (N, B, 5) float64, see :mod:`asr_core.ops.cpu.ctc_prefix`; -inf where there is none.
      ident: (N, B, 5) int64, see there.
      time: (N, 1) int64, frames consumed.
      origin: (N, B) int32, for prefixes whose last token is of the last frame the link of the token
        before it.
      scorers: the states of each scorer.
    """

    score: Tensor
    ident: Tensor
    time: Tensor
    origin: Tensor
    scorers: Tuple[States, ...]


class _Before(NamedTuple):
    """The prefixes before a frame, (N, B), and the best alignment of each that any token may
    follow.
    """

    blank: Tensor
    token: Tensor
    extra: Tensor
    best_blank: Tensor
    best_token: Tensor
    key: Tensor
    parent_key: Tensor
    last: Tensor
    link_blank: Tensor
    link_token: Tensor
    total: Tensor
    best: Tensor
    link: Tensor

    @classmethod
    def of(cls, state: PrefixState) -> "_Before":
        score, ident = state.score.unbind(2), state.ident.unbind(2)
        best_blank, best_token = score[columns.BEST_BLANK], score[columns.BEST_TOKEN]
        link_blank, link_token = ident[columns.LINK_BLANK], ident[columns.LINK_TOKEN]
        total = torch.logaddexp(score[columns.BLANK], score[columns.TOKEN])
        link = torch.where(best_blank >= best_token, link_blank, link_token)
        return cls._make((*score, *ident, total, torch.maximum(best_blank, best_token), link))


class _Stays(NamedTuple):
    """The prefixes if they do not grow, (N, B); others grow into some of them.

    Attributes:
      blank, token, best_blank, best_token: their scores.
      parent: the place of the prefix that grows into each.
      meets: whether there is one.
      came: whether the best alignment that ends in a token grew now.
      origin: then the link that it came from.
    """

    blank: Tensor
    token: Tensor
    best_blank: Tensor
    best_token: Tensor
    parent: Tensor
    meets: Tensor
    came: Tensor
    origin: Tensor


class CtcPrefixes:
    """The search itself, see :class:`~asr_core.decoding.device.frame_loop.Stepwise`.

    Args:
      beam_size: B, prefixes kept.
      vocab_size: V, number of tokens.
      scorers: language models and contextual biasing.
    """

    blank = BLANK

    def __init__(self, beam_size: int, vocab_size: int, scorers: Sequence[Scorer] = ()) -> None:
        self._beam, self.vocab_size, self._scorers = beam_size, vocab_size, scorers

    def start(self, num: int, device: torch.device) -> PrefixState:
        """Return one empty prefix for each of ``num`` utterances."""
        shape = (num, self._beam, 5)
        score = torch.full(shape, _NEVER, dtype=torch.float64, device=device)
        score[:, :, columns.EXTRA] = 0
        score[:, 0, columns.BLANK] = score[:, 0, columns.BEST_BLANK] = 0
        ident = torch.zeros(shape, dtype=torch.int64, device=device)
        ident[:, :, columns.LAST] = BLANK
        ident[:, :, columns.LINK_BLANK :] = -1
        return PrefixState(
            score,
            ident,
            time=torch.zeros(num, 1, dtype=torch.int64, device=device),
            origin=torch.full((num, self._beam), -1, dtype=torch.int32, device=device),
            scorers=tuple(scorer.start(num, self._beam) for scorer in self._scorers),
        )

    def endings(self, state: PrefixState) -> Tensor:
        """Return the scorers' scores (N, B) of ending."""
        total = torch.zeros_like(state.score[:, :, 0])
        for scorer, states in zip(self._scorers, state.scorers):
            total += scorer.finish(states)
        return total

    def step(self, frame: Tensor, state: PrefixState) -> Tuple[PrefixState, Tensor, Tensor]:
        """Consume one frame (N, V + K): log-probabilities, and the ids of the K best tokens."""
        log_probs, best = frame[:, : self.vocab_size], frame[:, self.vocab_size :].long()
        before = _Before.of(state)
        stays = _stay(log_probs, before)
        value, item = self._candidates(log_probs, best, before, stays).topk(self._beam)  # (N, B)
        kind, beam = item.div(self._beam, rounding_mode="floor"), self._beam
        in_grows = (item - 2 * beam).clamp_(min=0)
        from_grows = in_grows.div(best.size(1), rounding_mode="floor")
        place = torch.where(kind < 2, item.remainder(beam), from_grows)
        grown_by = best.gather(1, in_grows.remainder(best.size(1)))
        token = torch.where(kind < 2, before.last.gather(1, place), grown_by).masked_fill_(kind == 0, BLANK)
        after = _after(log_probs, before, stays, state.time, place, token, value > _NEVER)
        if self._scorers:
            emits = (token != BLANK) & (value > _NEVER)
            added, scorers = extend_all(self._scorers, state.scorers, place, token, emits)
            for more in added:
                after.score[:, :, columns.EXTRA] += more
            after = after._replace(scorers=scorers)
        return after, place, token

    def _candidates(self, log_probs: Tensor, best: Tensor, before: _Before, stays: _Stays) -> Tensor:
        """Return the scores of all that may live on, (N, B + B + B * K).

        They are the prefixes as they are; those that repeat their last token; and those that grow
        by one of the best tokens (N, K). Growing into a prefix that lives already is no candidate.
        """
        num, beam, vocab_size = len(best), self._beam, self.vocab_size
        stay = torch.logaddexp(stays.blank, stays.token) + before.extra
        taken = torch.zeros(num, beam * vocab_size + 1, dtype=torch.bool, device=best.device)
        child = (stays.parent * vocab_size + before.last).masked_fill_(~stays.meets, beam * vocab_size)
        taken.scatter_(1, child, True)
        taken = taken[:, :-1].view(num, beam, vocab_size)
        last = before.last.unsqueeze(2)  # (N, B, 1)
        repeats = before.blank + before.extra + log_probs.gather(1, before.last)
        repeats = repeats.masked_fill_(taken.gather(2, last).squeeze(2) | (before.last == BLANK), _NEVER)
        base = (before.total + before.extra).unsqueeze(2)  # (N, B, 1)
        grows = base + log_probs.gather(1, best).unsqueeze(1)  # (N, B, K)
        every = best.unsqueeze(1)  # (N, 1, K)
        barred = taken.gather(2, every.expand(num, beam, -1)) | (every == BLANK) | (every == last)
        grows = grows.masked_fill_(barred, _NEVER)
        return torch.cat([stay, repeats, grows.flatten(1)], dim=1)


class PrefixLoop(FrameLoop[PrefixState]):
    """The search of up to ``room.rows`` utterances.

    Args:
      search: takes the steps.
      room: see :class:`~asr_core.decoding.device.frame_loop.Room`.
    """

    def __init__(self, search: CtcPrefixes, room: Room) -> None:
        self._endings, vocab_size = search.endings, search.vocab_size
        start = search.start(room.rows, room.like.device)
        super().__init__(search, room, start, vocab_size, lambda state: (state.origin,))

    def __call__(self, x: Tensor, lens: Tensor, num_best: int) -> List[List[Hypothesis]]:
        """Search frames ``x`` (N, T, V + K) with lengths ``lens`` (N,)."""
        grown, origins = (trace.cpu().numpy() for trace in self.run(x, lens))  # (T, N, B)
        parents, tokens = np.divmod(grown, self.num_symbols)
        trace, endings = (parents, tokens, origins.astype(np.int64)), self._endings(self.state)
        score, ident, ending = (t.cpu().numpy() for t in (self.state.score, self.state.ident, endings))
        lists: List[List[Hypothesis]] = []
        for row, length in enumerate(lens.tolist()):
            stream = CtcPrefixStream(score[row], ident[row], (), ending[row])
            stream.add(Origins(*(np.ascontiguousarray(part[:length, row]) for part in trace)))
            lists.append(stream.nbest(num_best))
        return lists


def _at(place: Tensor, *values: Tensor) -> Tuple[Tensor, ...]:
    """Return ``values``, all (N, B) of one type, at ``place`` (N, B), in two launches."""
    together = torch.stack(values, dim=2)
    return together.gather(1, place.unsqueeze(2).expand(-1, -1, len(values))).unbind(2)


def _stay(log_probs: Tensor, before: _Before) -> _Stays:
    """Return the prefixes that do not grow after a frame (N, V)."""
    has_last = before.last != BLANK
    at_blank = log_probs[:, BLANK : BLANK + 1].double()  # (N, 1)
    at_last = log_probs.gather(1, before.last).double().masked_fill_(~has_last, _NEVER)  # (N, B)
    lives = before.total > _NEVER
    found = (before.parent_key.unsqueeze(2) == before.key.unsqueeze(1)) & lives.unsqueeze(1)  # (N, B, B)
    found &= (has_last & lives).unsqueeze(2)
    meets, parent = found.any(dim=2), found.byte().argmax(dim=2)  # (N, B)
    blank, total, best_blank, best = _at(parent, before.blank, before.total, before.best_blank, before.best)
    last, link_blank, link = _at(parent, before.last, before.link_blank, before.link)
    again = last == before.last  # a token that is repeated needs a blank between
    added = (torch.where(again, blank, total) + at_last).masked_fill_(~meets, _NEVER)
    best = (torch.where(again, best_blank, best) + at_last).masked_fill_(~meets, _NEVER)
    best_token = before.best_token + at_last
    return _Stays(
        blank=before.total + at_blank,
        token=torch.logaddexp(before.token + at_last, added),
        best_blank=before.best + at_blank,
        best_token=torch.maximum(best_token, best),
        parent=parent,
        meets=meets,
        came=best > best_token,
        origin=torch.where(again, link_blank, link),
    )


def _after(
    log_probs: Tensor,
    before: _Before,
    stays: _Stays,
    time: Tensor,
    place: Tensor,
    token: Tensor,
    lives: Tensor,
) -> PrefixState:
    """Return the prefixes after a frame (N, V): those from ``place`` (N, B), grown by ``token``
    (N, B) where it is no blank, alive where ``lives`` (N, B); the scorers are not asked yet.
    """
    blank, total, best_blank, best, extra, *stayed = _at(
        place,
        *(before.blank, before.total, before.best_blank, before.best, before.extra),
        *(stays.blank, stays.token, stays.best_blank, stays.best_token),
    )
    key, parent_key, last, link_blank, link_token, link, came, origin = _at(
        place,
        *(before.key, before.parent_key, before.last, before.link_blank, before.link_token),
        *(before.link, stays.came.long(), stays.origin),
    )
    stay, again, added = token == BLANK, token == last, log_probs.gather(1, token)
    never = torch.full_like(blank, _NEVER)
    grown = torch.where(again, blank, total) + added
    grown_best = torch.where(again, best_blank, best) + added
    scores = [torch.where(stay, *pair) for pair in zip(stayed, (never, grown, never, grown_best))]
    score = torch.stack([*scores[:2], extra, *scores[2:]], dim=2).masked_fill_(~lives.unsqueeze(2), _NEVER)
    score[:, :, columns.EXTRA].masked_fill_(~lives, 0.0)
    here = time * place.size(1) + torch.arange(place.size(1), device=place.device)  # (N, B) links
    ident = torch.stack(
        [
            torch.where(stay, key, torch.add(token, key, alpha=KEY_FACTOR) + 1),
            torch.where(stay, parent_key, key),
            torch.where(stay, last, token),
            link.masked_fill(~stay, -1),
            torch.where(stay & (came == 0), link_token, here),
        ],
        dim=2,
    )
    came_from = torch.where(again, link_blank, link)
    return PrefixState(score, ident, time + 1, torch.where(stay, origin, came_from).int(), ())
