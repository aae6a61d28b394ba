"""Modified beam search: at most one token per frame, equal token sequences merged."""

from typing import Any, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.scorers.token_scorers import Scorer, States, join, pick
from asr_core.decoding.transducer.context_table import adjusted_log_probs
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.decoding.transducer.predictor import concatenate, histories

KEY_FACTOR = (
    6364136223846793005  # multiplier of Knuth's MMIX generator: keys are polynomials in it modulo 2^64
)


class BeamState(NamedTuple):
    """Live hypotheses of n utterances, all (n, beam, ...); places that hold none have the score -inf.

    Attributes:
      score: log-probability.
      key: int64, a hash of the token sequence, equal for equal sequences.
      length: int64, number of tokens with the initial context, which the final choice divides by.
      history: the predictor's states, see :class:`~asr_core.decoding.transducer.predictor.PredictorStates`.
      scorers: the states of each scorer.
    """

    score: Tensor
    key: Tensor
    length: Tensor
    history: States
    scorers: Tuple[States, ...] = ()

    def rows(self, start: int, end: int) -> "BeamState":
        """The hypotheses of utterances start..end-1."""
        history, *scorers = (tuple(x[start:end] for x in states) for states in (self.history, *self.scorers))
        return BeamState(*(x[start:end] for x in self[:3]), history, tuple(scorers))

    @staticmethod
    def joined(parts: Sequence["BeamState"]) -> "BeamState":
        """The hypotheses of several groups of utterances as one."""
        tensors = (torch.cat(x) for x in zip(*(part[:3] for part in parts)))
        scorers = tuple(join(states) for states in zip(*(part.scorers for part in parts)))
        return BeamState(*tensors, concatenate([part.history for part in parts]), scorers)


class _Trace(NamedTuple):
    """Back pointers: for each frame where each place's hypothesis came from and its token there, both (n_t, beam)."""

    parents: List[Tensor]
    tokens: List[Tensor]


@torch.inference_mode()
def modified_beam_search(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    scorers: Sequence[Scorer] = (),
) -> List[Hypothesis]:
    """Beam search with at most one token per frame, batched over utterances and hypotheses.

    At each frame the ``beam_size`` best continuations of an utterance's hypotheses survive and get what the scorers say of their
    new tokens; those with equal tokens become one whose probability is their sum. The answer has the highest score per token
    (the initial context counts).

    Args:
      model: has ``decoder`` and ``joiner``; eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      beam_size: hypotheses kept per utterance.
      blank_penalty: subtracted from the logit of blank.
      temperature: logits are divided by it.
      scorers: language models and the like.
    """
    core = BeamCore(model, beam_size, blank_penalty, temperature, scorers)
    packed = pack_frames(encoder_out, encoder_out_lens)
    state, trace = core.run(packed.frames, core.start(encoder_out.size(0)))
    final = core.final_scores(state)
    best = _best_place(final, state).unsqueeze(1)
    _, tokens = backtrack(*trace, best, core.blank_id)
    scores = final.gather(1, best).squeeze(1).tolist()
    hypotheses = [
        Hypothesis(*to_lists(tokens[row, 0], core.blank_id), score) for row, score in enumerate(scores)
    ]
    back = packed.order.argsort().tolist()
    return [hypotheses[row] for row in back]


@torch.inference_mode()
def modified_beam_nbest(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    beam_size: int = 4,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    scorers: Sequence[Scorer] = (),
) -> List[List[Hypothesis]]:
    """All hypotheses that :func:`modified_beam_search` ends with, for each utterance, the highest score per token first."""
    core = BeamCore(model, beam_size, blank_penalty, temperature, scorers)
    packed = pack_frames(encoder_out, encoder_out_lens)
    state, trace = core.run(packed.frames, core.start(encoder_out.size(0)))
    final = core.final_scores(state)
    places = (final / state.length).argsort(dim=1, descending=True, stable=True)
    scores = final.gather(1, places)
    _, tokens = backtrack(*trace, places, core.blank_id)
    lists: List[List[Hypothesis]] = []
    for row, row_scores in enumerate(scores.tolist()):
        live = [k for k, score in enumerate(row_scores) if score > float("-inf")]
        lists.append([Hypothesis(*to_lists(tokens[row, k], core.blank_id), row_scores[k]) for k in live])
    return [lists[row] for row in packed.order.argsort().tolist()]


class BeamStream:
    """What modified beam search remembers of one stream: its live hypotheses and the tokens of each."""

    def __init__(self, state: BeamState, final: Tensor) -> None:
        beam = state.score.size(1)
        self.state = state
        self.final = final
        self.tokens: List[List[int]] = [[] for _ in range(beam)]
        self.timestamps: List[List[int]] = [[] for _ in range(beam)]
        self.num_frames = 0

    def hypothesis(self) -> Hypothesis:
        """The best hypothesis up to now."""
        best = int(_best_place(self.final, self.state))
        return Hypothesis(list(self.tokens[best]), list(self.timestamps[best]), float(self.final[0, best]))


class StreamingBeamSearch:
    """Modified beam search over streams that arrive chunk by chunk; any streams may be advanced together.

    Args:
      model: as for :func:`modified_beam_search`.
      num_active_paths: hypotheses kept per stream.
      blank_penalty: subtracted from the logit of blank.
      temperature: logits are divided by it.
      scorers: language models and the like.
    """

    def __init__(
        self,
        model: Any,
        num_active_paths: int = 4,
        blank_penalty: float = 0.0,
        temperature: float = 1.0,
        scorers: Sequence[Scorer] = (),
    ) -> None:
        self._core = BeamCore(model, num_active_paths, blank_penalty, temperature, scorers)

    def new_stream(self) -> BeamStream:
        """The state of a stream that has not begun."""
        state = self._core.start(1)
        return BeamStream(state, self._core.final_scores(state))

    @torch.inference_mode()
    def advance(self, streams: List[BeamStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``.

        Args:
          streams: N of them, changed in place.
          encoder_out: (N, T, C), not projected.
          encoder_out_lens: (N,) int64.
        """
        packed = pack_frames(encoder_out, encoder_out_lens)
        ordered = [streams[i] for i in packed.order.tolist()]
        state = BeamState.joined([s.state for s in ordered])
        state, trace = self._core.run(packed.frames, state)
        beam, final = state.score.size(1), self._core.final_scores(state)
        places = torch.arange(beam, device=state.score.device).expand(len(ordered), beam)
        origin, tokens = backtrack(*trace, places, self._core.blank_id)
        lens = encoder_out_lens.to(packed.order.device)[packed.order].tolist()
        for row, (stream, origins) in enumerate(zip(ordered, origin.tolist())):
            new = [to_lists(tokens[row, place], self._core.blank_id) for place in range(beam)]
            stream.tokens = [stream.tokens[o] + toks for o, (toks, _) in zip(origins, new)]
            stream.timestamps = [
                stream.timestamps[o] + [stream.num_frames + t for t in times]
                for o, (_, times) in zip(origins, new)
            ]
            stream.num_frames += lens[row]
            stream.state, stream.final = state.rows(row, row + 1), final[row : row + 1]


class BeamCore:
    """The search itself, on tensors (utterances, beam)."""

    def __init__(
        self,
        model: Any,
        beam_size: int,
        blank_penalty: float,
        temperature: float,
        scorers: Sequence[Scorer] = (),
    ) -> None:
        if beam_size < 1:
            raise ValueError(f"the beam must hold at least 1 hypothesis, got {beam_size}")
        self._joiner = model.joiner
        self._histories = histories(model)
        self._beam = beam_size
        self._blank_penalty = blank_penalty
        self._temperature = temperature
        self._scorers = scorers
        self.blank_id = self._histories.blank_id
        self._earlier = torch.ones(
            beam_size, beam_size, dtype=torch.bool, device=self._histories.device
        ).tril(-1)

    def start(self, num: int) -> BeamState:
        """One empty hypothesis for each of ``num`` utterances."""
        device = self._histories.device
        score = torch.full((num, self._beam), float("-inf"), device=device)
        score[:, 0] = 0
        key = torch.zeros(num, self._beam, dtype=torch.int64, device=device)
        scorers = tuple(scorer.start(num, self._beam) for scorer in self._scorers)
        return BeamState(
            score, key, key + self._histories.initial_length, self._histories.start(num, self._beam), scorers
        )

    def final_scores(self, state: BeamState) -> Tensor:
        """Scores (n, beam) of the hypotheses if they end here."""
        return sum(
            (scorer.finish(states) for scorer, states in zip(self._scorers, state.scorers)), state.score
        )

    def run(self, frames: List[Tensor], state: BeamState) -> Tuple[BeamState, _Trace]:
        """Search ``frames`` (of :func:`pack_frames`, not projected); rows of ``state`` in the same order."""
        trace = _Trace([], [])
        done: List[BeamState] = []
        if frames:
            frames = list(self._joiner.encoder_proj(torch.cat(frames)).split([len(f) for f in frames]))
        for frame in frames:
            n, size = len(frame), len(state.score)
            if n < size:
                done.append(state.rows(n, size))
                state = state.rows(0, n)
            state, parent, token = self._step(frame, state)
            trace.parents.append(parent)
            trace.tokens.append(token)
        return BeamState.joined([state, *reversed(done)]) if done else state, trace

    def _step(self, frame: Tensor, state: BeamState) -> Tuple[BeamState, Tensor, Tensor]:
        """One frame (n, C); returns the new state and, for each of its places, the parent's place and the token."""
        logits = self._joiner(frame.unsqueeze(1), self._histories.output(state.history), project_input=False)
        log_probs = adjusted_log_probs(logits, self.blank_id, self._blank_penalty, self._temperature)
        score, index = log_probs.add_(state.score.unsqueeze(-1)).flatten(1).topk(self._beam)
        parent = index.div(self._histories.vocab_size, rounding_mode="floor")
        token = index.remainder(self._histories.vocab_size)
        emits = token != self.blank_id
        key = state.key.gather(1, parent)
        key = torch.where(emits, torch.add(token, key, alpha=KEY_FACTOR) + 1, key)
        history = self._histories.append(pick(state.history, parent), token, emits)
        length = state.length.gather(1, parent).add_(emits)
        scorers = ()
        if self._scorers:
            score, scorers = self._add_scores(
                score, parent, token, emits & (score > float("-inf")), state.scorers
            )
        return BeamState(merge_equal(score, key, self._earlier), key, length, history, scorers), parent, token

    def _add_scores(
        self, score: Tensor, parent: Tensor, token: Tensor, emits: Tensor, before: Tuple[States, ...]
    ) -> Tuple[Tensor, Tuple[States, ...]]:
        after: List[States] = []
        for scorer, states in zip(self._scorers, before):
            added, states = scorer.extend(pick(states, parent), token, emits)
            score = score + added
            after.append(states)
        return score, tuple(after)


def merge_equal(score: Tensor, key: Tensor, earlier: Tensor) -> Tensor:
    """Add up the probabilities of equal sequences in the first (best) of their places, empty the others.

    Args:
      score, key: (n, B), log-probabilities and hashes, equal for equal sequences.
      earlier: (B, B), true below the diagonal.
    """
    same = key.unsqueeze(2) == key.unsqueeze(1)  # (n, B, B)
    total = score.unsqueeze(1).masked_fill(~same, float("-inf")).logsumexp(dim=2)
    return total.masked_fill_((same & earlier).any(dim=2), float("-inf"))


def _best_place(score: Tensor, state: BeamState) -> Tensor:
    return (score / state.length).argmax(dim=1)


def backtrack(parents: List[Tensor], tokens: List[Tensor], place: Tensor, fill: int) -> Tuple[Tensor, Tensor]:
    """Follow back pointers from ``place`` (N, K), after the last frame, to the first frame.

    Args:
      parents, tokens: for each frame the place each hypothesis came from and its token there, both (n_t, S), n_t never growing.
      place: the hypotheses wanted.
      fill: stands where an utterance had ended.

    Returns:
      (N, K), where each began, and (N, K, T), its token at each frame.
    """
    path = place.new_full((*place.shape, len(parents)), fill)
    place = place.clone()
    for t in range(len(parents) - 1, -1, -1):
        n = len(parents[t])
        here = place[:n]
        path[:n, :, t] = tokens[t].gather(1, here)
        place[:n] = parents[t].gather(1, here)
    return place, path


def to_lists(tokens: Tensor, blank: int) -> Tuple[List[int], List[int]]:
    """Tokens (T,) without blanks, and their frames."""
    frames = (tokens != blank).nonzero().squeeze(1)
    return tokens[frames].tolist(), frames.tolist()
