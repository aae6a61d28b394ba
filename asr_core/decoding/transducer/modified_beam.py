"""Modified beam search: at most one token per frame, equal token sequences merged."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam_options import BeamOptions
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.scorers.base import Scorer, extend_all
from asr_core.decoding.states import States, concatenate, extend_key, initial_scores, pick
from asr_core.decoding.transducer.frame_synchronous import (
    FrameSynchronousSearch,
    PathStream,
    advance_streams,
    backtrack,
    to_paths,
)
from asr_core.decoding.transducer.packed_frames import pack_frames
from asr_core.decoding.transducer.predictor import PredictorStates, predictor_states

_NEVER = float("-inf")


class BeamState(NamedTuple):
    """Live hypotheses of N utterances, all (N, B, ...); empty places have the score -inf.

    Attributes:
      score: log-probability.
      key: int64, a hash of the token sequence, equal for equal sequences.
      length: int64, number of tokens with the initial context, which the final choice divides by.
      predictor: the predictor's states, see
        :class:`~asr_core.decoding.transducer.predictor.PredictorStates`.
      scorers: the states of each scorer.
    """

    score: Tensor
    key: Tensor
    length: Tensor
    predictor: States
    scorers: Tuple[States, ...] = ()


@torch.inference_mode()
def modified_beam_search(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: BeamOptions = BeamOptions(),
    scorers: Sequence[Scorer] = (),
) -> List[List[Hypothesis]]:
    """Search with at most one token per frame, batched over utterances and hypotheses.

    At each frame the ``beam_size`` best continuations of an utterance's hypotheses survive, and the
    scorers add their scores of the new tokens. Hypotheses with equal tokens become one, whose
    probability is their sum.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: beam size, blank penalty, temperature, and the length of the lists.
      scorers: language models and contextual biasing.

    Returns:
      For each utterance its hypotheses, no two with the same tokens and one at least. The first has
      the highest score per token, the initial context included.
    """
    core = BeamCore(model, opts, scorers)
    packed = pack_frames(encoder_out, encoder_out_lens)
    state, trace = core.run(packed.frames, core.start(encoder_out.size(0)))
    final = core.final_scores(state)  # (N, B)
    places = core.ranked(final, state)[:, : opts.num_best or opts.beam_size]  # (N, K)
    _, tokens = backtrack(trace, places, core.blank)
    found: List[List[Hypothesis]] = []
    for scores, paths in zip(final.gather(1, places).tolist(), to_paths(tokens, core.blank)):
        # the first place always holds a hypothesis, unless a model computes no numbers
        live = [k for k, score in enumerate(scores) if k == 0 or score > _NEVER]
        found.append([Hypothesis(paths[k][0], paths[k][1], scores[k]) for k in live])
    return [found[row] for row in packed.order.argsort().tolist()]


class BeamStream(PathStream[BeamState]):
    """The state of modified beam search in one stream."""

    def hypothesis(self) -> Hypothesis:
        """Return the best hypothesis up to now."""
        best = int((self.final / self.state.length).argmax(dim=1))
        tokens, timestamps = self.paths[best]
        return Hypothesis(list(tokens), list(timestamps), float(self.final[0, best]))


class StreamingBeamSearch:
    """Modified beam search over streams, see :class:`~asr_core.decoding.protocol.StreamingSearch`.

    Args:
      model: eager or TorchScript.
      opts: beam size, blank penalty and temperature.
      scorers: language models and contextual biasing.
    """

    def __init__(
        self, model: Transducer, opts: BeamOptions = BeamOptions(), scorers: Sequence[Scorer] = ()
    ) -> None:
        self._core = BeamCore(model, opts, scorers)

    def new_stream(self) -> BeamStream:
        """Return the state of a new stream."""
        state = self._core.start(1)
        return BeamStream(state, self._core.final_scores(state))

    @torch.inference_mode()
    def advance(self, streams: List[BeamStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume the next frames of each stream; ``encoder_out`` is (N, T, C)."""
        advance_streams(self._core, streams, encoder_out, encoder_out_lens)


class BeamCore(FrameSynchronousSearch[BeamState]):
    """The search itself, on tensors (N, B).

    Args:
      model, opts, scorers: as of :class:`StreamingBeamSearch`.
      predictor: the model's predictor, if not in its usual form.
    """

    def __init__(
        self,
        model: Transducer,
        opts: BeamOptions,
        scorers: Sequence[Scorer] = (),
        predictor: Optional[PredictorStates] = None,
    ) -> None:
        self._predictor = predictor_states(model) if predictor is None else predictor
        super().__init__(model.joiner, self._predictor.blank_id)
        self._opts = opts
        self._scorers = scorers
        beam, device = opts.beam_size, self._predictor.device
        self._earlier = torch.ones(beam, beam, dtype=torch.bool, device=device).tril(-1)

    def start(self, num: int) -> BeamState:
        """Return one empty hypothesis for each of ``num`` utterances."""
        beam, device = self._opts.beam_size, self._predictor.device
        score = initial_scores(num, beam, device)
        key = torch.zeros(num, beam, dtype=torch.int64, device=device)
        return BeamState(
            score=score,
            key=key,
            length=key + self._predictor.initial_length,
            predictor=self._predictor.start(num, beam),
            scorers=tuple(scorer.start(num, beam) for scorer in self._scorers),
        )

    def rows(self, state: BeamState, start: int, end: int) -> BeamState:
        """Return the hypotheses of utterances start..end-1."""
        predictor, *scorers = (
            tuple(x[start:end] for x in states) for states in (state.predictor, *state.scorers)
        )
        return BeamState(
            state.score[start:end], state.key[start:end], state.length[start:end], predictor, tuple(scorers)
        )

    def join(self, parts: Sequence[BeamState]) -> BeamState:
        """Return the hypotheses of several groups of utterances as one state."""
        of_scorers = zip(*(part.scorers for part in parts))
        return BeamState(
            score=torch.cat([part.score for part in parts]),
            key=torch.cat([part.key for part in parts]),
            length=torch.cat([part.length for part in parts]),
            predictor=concatenate([part.predictor for part in parts]),
            scorers=tuple(scorer.join(states) for scorer, states in zip(self._scorers, of_scorers)),
        )

    def final_scores(self, state: BeamState) -> Tensor:
        """Return the scores (N, B) of the hypotheses if they end here."""
        total = state.score
        for scorer, states in zip(self._scorers, state.scorers):
            total = total + scorer.finish(states)
        return total

    def ranked(self, final: Tensor, state: BeamState) -> Tensor:
        """Return the places (N, B) of the hypotheses by ``final`` score (N, B) per token, the best
        first.
        """
        return (final / state.length).argsort(dim=1, descending=True, stable=True)

    def step(self, frame: Tensor, state: BeamState) -> Tuple[BeamState, Tensor, Tensor]:
        """Consume one projected frame (N, J), see :class:`FrameSynchronousSearch`."""
        predictor = self._predictor
        decoder_out = predictor.output(state.predictor)  # (N, B, J)
        logits = self.joiner(frame.unsqueeze(1), decoder_out, project_input=False)  # (N, B, V)
        log_probs = adjusted_log_probs(logits, self.blank, self._opts)
        # the B best of the B * V continuations of each utterance
        score, index = log_probs.add_(state.score.unsqueeze(-1)).flatten(1).topk(self._opts.beam_size)
        parent = index.div(predictor.vocab_size, rounding_mode="floor")  # (N, B)
        token = index.remainder(predictor.vocab_size)  # (N, B)
        emits = token != self.blank
        key = extend_key(state.key.gather(1, parent), token, emits)
        scorers: Tuple[States, ...] = ()
        if self._scorers:
            new = emits & (score > _NEVER)
            added, scorers = extend_all(self._scorers, state.scorers, parent, token, new)
            for more in added:
                score = score + more
        after = BeamState(
            score=merge_equal(score, key, self._earlier),
            key=key,
            length=state.length.gather(1, parent).add_(emits),
            predictor=predictor.append(pick(state.predictor, parent), token, emits),
            scorers=scorers,
        )
        return after, parent, token


def merge_equal(score: Tensor, key: Tensor, earlier: Tensor) -> Tensor:
    """Add up the probabilities of equal sequences in the first (best) of their places, and empty
    the others.

    Args:
      score, key: (N, B), log-probabilities and hashes, equal for equal sequences.
      earlier: (B, B), true below the diagonal.

    Returns:
      The scores (N, B), -inf in the places that were emptied.
    """
    same = key.unsqueeze(2) == key.unsqueeze(1)  # (N, B, B)
    total = score.unsqueeze(1).masked_fill(~same, _NEVER).logsumexp(dim=2)
    return total.masked_fill_((same & earlier).any(dim=2), _NEVER)
