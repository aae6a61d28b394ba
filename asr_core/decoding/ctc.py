"""Search with the CTC head: the best token of each frame, or prefix beam search."""

from typing import Any, List, NamedTuple, Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam import KEY_FACTOR, backtrack
from asr_core.decoding.context import adjusted_log_probs
from asr_core.decoding.frames import pack_frames
from asr_core.decoding.hypothesis import GreedyAnswer, Hypothesis
from asr_core.ops.forced_align import ctc_forced_align

_BLANK = 0  # of the CTC loss


@torch.inference_mode()
def ctc_greedy_search(
    model: Any, encoder_out: Tensor, encoder_out_lens: Tensor, blank_penalty: float = 0.0, temperature: float = 1.0
) -> List[Hypothesis]:
    """The best token of each frame; repeats become one, blanks are left out.

    Args:
      model: has ``ctc_output``; eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      blank_penalty: subtracted from the log-probability of blank, which is normalised again.
      temperature: log-probabilities are divided by it, and normalised again.
    """
    search = StreamingCtcGreedySearch(model, blank_penalty, temperature)
    streams = [search.new_stream() for _ in range(encoder_out.size(0))]
    search.advance(streams, encoder_out, encoder_out_lens)
    return [s.hypothesis() for s in streams]


class CtcGreedyStream(GreedyAnswer):
    """What greedy search remembers of one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.last = _BLANK  # the best token of the last frame


class StreamingCtcGreedySearch:
    """CTC greedy search over streams that arrive chunk by chunk; any streams may be advanced together.

    Arguments as of :func:`ctc_greedy_search`.
    """

    def __init__(self, model: Any, blank_penalty: float = 0.0, temperature: float = 1.0) -> None:
        self._model = model
        self._blank_penalty = blank_penalty
        self._temperature = temperature

    def new_stream(self) -> CtcGreedyStream:
        """The state of a stream that has not begun."""
        return CtcGreedyStream()

    @torch.inference_mode()
    def advance(self, streams: List[CtcGreedyStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``.

        Args:
          streams: N of them, changed in place.
          encoder_out: (N, T, C).
          encoder_out_lens: (N,) int64.
        """
        best, token = ctc_log_probs(self._model, encoder_out, self._blank_penalty, self._temperature).max(dim=2)
        lens = encoder_out_lens.to(token.device)
        valid = torch.arange(token.size(1), device=token.device) < lens.unsqueeze(1)
        before = torch.cat([torch.tensor([[s.last] for s in streams], device=token.device), token[:, :-1]], dim=1)
        emits = valid & (token != _BLANK) & (token != before)
        scores = best.masked_fill(~valid, 0.0).sum(dim=1).tolist()
        rows, frames = emits.nonzero(as_tuple=True)
        for row, frame, value in zip(rows.tolist(), frames.tolist(), token[rows, frames].tolist()):
            streams[row].tokens.append(value)
            streams[row].timestamps.append(streams[row].num_frames + frame)
        ends = token.gather(1, (lens - 1).clamp(min=0).unsqueeze(1)).squeeze(1).tolist()
        for stream, score, num_frames, end in zip(streams, scores, lens.tolist(), ends):
            stream.log_prob += score
            stream.num_frames += num_frames
            stream.last = end if num_frames else stream.last


@torch.inference_mode()
def ctc_prefix_beam_search(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
) -> List[Hypothesis]:
    """The most probable token sequence that prefix beam search finds, see :func:`ctc_prefix_nbest`."""
    found = ctc_prefix_nbest(model, encoder_out, encoder_out_lens, beam_size, blank_penalty, temperature, num_best=1)
    return [best[0] for best in found]


@torch.inference_mode()
def ctc_prefix_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    num_best: int = 0,
) -> List[List[Hypothesis]]:
    """Prefix beam search (Hannun et al. 2014, https://arxiv.org/abs/1408.2873), batched over utterances and prefixes.

    The probability of a prefix is the sum over all its alignments that stay in the beam; every token may extend it.

    Args:
      model: has ``ctc_output``; eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      beam_size: prefixes kept per utterance.
      blank_penalty, temperature: see :func:`ctc_greedy_search`.
      num_best: hypotheses returned at most; 0: all.

    Returns:
      For each utterance at most ``beam_size`` hypotheses, the most probable first, no two with the same tokens. Timestamps are those of the
      best alignment.
    """
    if beam_size < 1:
        raise ValueError(f"the beam must hold at least 1 hypothesis, got {beam_size}")
    log_probs = ctc_log_probs(model, encoder_out, blank_penalty, temperature)
    packed = pack_frames(log_probs, encoder_out_lens)
    state, parents, grown = _run(packed.frames, _start(encoder_out.size(0), beam_size, encoder_out))
    score, place = (x[:, : num_best or beam_size] for x in state.score().sort(dim=1, descending=True, stable=True))
    _, tokens = backtrack(parents, grown, place, _BLANK)
    rows, found, scores = [], [], []
    for utterance, row in enumerate(packed.order.argsort().tolist()):
        for k, value in enumerate(score[row].tolist()):
            if value > float("-inf"):
                rows.append(utterance)
                found.append(tokens[row, k][tokens[row, k] != _BLANK].tolist())
                scores.append(value)
    frames, _ = ctc_forced_align(log_probs[rows], encoder_out_lens.to(log_probs.device)[rows], found, _BLANK)
    out: List[List[Hypothesis]] = [[] for _ in range(encoder_out.size(0))]
    for utterance, *hypothesis in zip(rows, found, frames, scores):
        out[utterance].append(Hypothesis(*hypothesis))
    return out


def ctc_log_probs(model: Any, encoder_out: Tensor, blank_penalty: float = 0.0, temperature: float = 1.0) -> Tensor:
    """Log-probabilities (N, T, V) of the CTC head."""
    log_probs = model.ctc_output(encoder_out)
    if blank_penalty == 0 and temperature == 1:
        return log_probs
    return adjusted_log_probs(log_probs, _BLANK, blank_penalty, temperature)


class _Prefixes(NamedTuple):
    """Live prefixes of n utterances, all (n, beam); places that hold none have the score -inf.

    Attributes:
      blank: log-probability of the alignments that end in blank.
      token: of those that end in the prefix's last token.
      key: int64, a hash of the tokens.
      last: int64, the last token; blank for the empty prefix.
    """

    blank: Tensor
    token: Tensor
    key: Tensor
    last: Tensor

    def score(self) -> Tensor:
        """Log-probability of each prefix."""
        return torch.logaddexp(self.blank, self.token)

    def rows(self, start: int, end: int) -> "_Prefixes":
        """Those of utterances start..end-1."""
        return _Prefixes(*(x[start:end] for x in self))


def _start(num: int, beam: int, like: Tensor) -> _Prefixes:
    """The empty prefix for each of ``num`` utterances."""
    none = torch.full((num, beam), float("-inf"), device=like.device)
    blank = none.clone()
    blank[:, 0] = 0
    zeros = torch.zeros(num, beam, dtype=torch.int64, device=like.device)
    return _Prefixes(blank, none, zeros, torch.full_like(zeros, _BLANK))


def _run(frames: List[Tensor], state: _Prefixes) -> Tuple[_Prefixes, List[Tensor], List[Tensor]]:
    """Search log-probabilities of :func:`pack_frames`; the rows of ``state`` are in the same order.

    Returns the last state and, for each frame, what :func:`_step` tells of parents and tokens.
    """
    parents: List[Tensor] = []
    tokens: List[Tensor] = []
    done: List[_Prefixes] = []
    for frame in frames:
        n, size = len(frame), len(state.blank)
        if n < size:
            done.append(state.rows(n, size))
            state = state.rows(0, n)
        state, parent, token = _step(frame.float(), state)
        parents.append(parent)
        tokens.append(token)
    return _Prefixes(*(torch.cat(parts) for parts in zip(state, *reversed(done)))), parents, tokens


def _step(frame: Tensor, state: _Prefixes) -> Tuple[_Prefixes, Tensor, Tensor]:
    """One frame of log-probabilities (n, V); returns the new state and, for each place, its parent's place and its new token."""
    n, beam = state.key.shape
    num_tokens = frame.size(1)
    score = state.score()
    stay_blank = score + frame[:, _BLANK].unsqueeze(1)
    stay_token = state.token + frame.gather(1, state.last)
    grown = score.unsqueeze(2) + frame.unsqueeze(1)  # (n, beam, V)
    again = (state.blank + frame.gather(1, state.last)).unsqueeze(2)  # the same token twice needs a blank between
    grown.scatter_(2, state.last.unsqueeze(2), again)
    grown[:, :, _BLANK] = float("-inf")
    # prefix a may grow into prefix b, which is in the beam already: their probabilities add up there
    last = state.last.unsqueeze(1).expand(n, beam, beam)  # [.., a, b]: last token of b
    same = (_grow(state.key.unsqueeze(2), last) == state.key.unsqueeze(1)) & (last != _BLANK)
    into = grown.gather(2, last).masked_fill(~same, float("-inf"))
    stay_token = torch.logaddexp(stay_token, into.logsumexp(dim=1))
    grown.scatter_reduce_(2, last, torch.where(same, float("-inf"), float("inf")), reduce="amin")

    best, index = torch.cat([torch.logaddexp(stay_blank, stay_token), grown.flatten(1)], dim=1).topk(beam, dim=1)
    stays = index < beam
    offset = (index - beam).clamp(min=0)
    parent = torch.where(stays, index, offset.div(num_tokens, rounding_mode="floor"))
    token = torch.where(stays, _BLANK, offset.remainder(num_tokens))
    key, before = state.key.gather(1, parent), state.last.gather(1, parent)
    new = _Prefixes(
        blank=stay_blank.gather(1, parent).masked_fill(~stays, float("-inf")),
        token=torch.where(stays, stay_token.gather(1, parent), best),
        key=torch.where(stays, key, _grow(key, token)),
        # an empty place must not look like a prefix that others may grow into
        last=torch.where(stays, before, token).masked_fill(best == float("-inf"), _BLANK),
    )
    return new, parent, token


def _grow(key: Tensor, token: Tensor) -> Tensor:
    """The hash of prefixes with hash ``key`` and one more ``token``."""
    return torch.add(token, key, alpha=KEY_FACTOR) + 1
