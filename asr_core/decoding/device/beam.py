"""Beam searches on the device: modified beam search, and fast beam search without a graph."""

from typing import Callable, Hashable, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions
from asr_core.decoding.device.frame_loop import RankedLoop, Room, Searched, room_for
from asr_core.decoding.device.predictor import device_states, numbered_states
from asr_core.decoding.device.replay import kept
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.states import initial_scores
from asr_core.decoding.transducer.frame_synchronous import FrameSynchronousSearch, to_paths
from asr_core.decoding.transducer.internal_lm import internal_log_probs
from asr_core.decoding.transducer.modified_beam import BeamCore

_NEVER = float("-inf")
MakeLoop = Callable[[Room], RankedLoop]


@torch.inference_mode()
def modified_beam_search_on_device(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: BeamOptions = BeamOptions(),
    scorers: Callable[[], Sequence[Scorer]] = tuple,
    scorers_key: Hashable = (),
) -> List[List[Hypothesis]]:
    """Search as :func:`~asr_core.decoding.transducer.modified_beam.modified_beam_search` does.

    Args:
      model, encoder_out, encoder_out_lens, opts: see there.
      scorers: makes them; all have fixed shapes, and none waits for the device.
      scorers_key: differs where the scorers do.
    """

    def make(room: Room) -> RankedLoop:
        core = BeamCore(model, opts, scorers(), device_states(model))
        return RankedLoop(core, core.ranked, room, core.start(room.rows), int(model.decoder.vocab_size))

    num_best = opts.num_best or opts.beam_size
    key = ("modified beam", opts, scorers_key)
    found = search_with(model, encoder_out, encoder_out_lens, key, make, num_best)
    return _lists(found, int(model.decoder.blank_id))


@torch.inference_mode()
def fast_beam_search_on_device(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: FastBeamOptions = FastBeamOptions(),
) -> List[Hypothesis]:
    """Search as :func:`~asr_core.decoding.transducer.fast_beam.fast_beam_search` does without a
    graph.

    Args:
      model: eager or TorchScript, with a stateless predictor whose contexts have numbers, see
        :func:`~asr_core.decoding.transducer.context_table.fits_table`.
      encoder_out, encoder_out_lens, opts: see there.
    """

    def make(room: Room) -> RankedLoop:
        core = ContextBeam(model, opts)
        start, num_symbols = core.start(room.rows), int(model.decoder.vocab_size)
        return RankedLoop(
            core,
            lambda final, state: final.argsort(dim=1, descending=True, stable=True),
            room,
            start,
            num_symbols,
        )

    found = search_with(model, encoder_out, encoder_out_lens, ("fast beam", opts), make, 1)
    return [lists[0] for lists in _lists(found, int(model.decoder.blank_id))]


def search_with(
    model: Transducer, encoder_out: Tensor, lens: Tensor, key: Hashable, make: MakeLoop, num_best: int
) -> Searched:
    """Search with the kept loop for ``key``, or the one that ``make`` makes."""
    x = model.joiner.encoder_proj(encoder_out)
    room = room_for(x)
    loop = kept(model, (key, room.rows, room.frames, x.dtype), lambda: make(room))
    return loop(x, lens, num_best)


def _lists(found: Searched, blank: int) -> List[List[Hypothesis]]:
    """Return the n-best list of each utterance, one hypothesis at least."""
    lists: List[List[Hypothesis]] = []
    for scores, paths in zip(found.scores.tolist(), to_paths(found.symbols, blank)):
        live = [k for k, score in enumerate(scores) if k == 0 or score > _NEVER]
        lists.append([Hypothesis(paths[k][0], paths[k][1], scores[k]) for k in live])
    return lists


class ContextState(NamedTuple):
    """Live contexts of N utterances, all (N, S); empty places have the score -inf.

    Attributes:
      score: log-probability of the best path to each.
      code: int64, the contexts.
    """

    score: Tensor
    code: Tensor


class Contexts:
    """The contexts of fast beam search on a frame: scores in them, and the best after it.

    Args:
      model: with a stateless predictor whose contexts have numbers.
      opts: beam and limits.
      size: S, contexts kept.
    """

    def __init__(self, model: Transducer, opts: FastBeamOptions, size: int) -> None:
        self.predictor = numbered_states(model)
        self.joiner, self.blank = model.joiner, self.predictor.blank_id
        self.size, self._opts = size, opts
        # A context is reached from S contexts, by two tokens from itself, so that S * S ways lead
        # to S contexts.
        self._ways = min(size**2, size * self.predictor.vocab_size)
        square = torch.ones(self._ways, self._ways, dtype=torch.bool, device=self.predictor.device)
        self._earlier = square.tril(-1)

    def log_probs(self, frame: Tensor, code: Tensor) -> Tensor:
        """Return the scores (N, S, V) of tokens on projected frames (N, J) in contexts (N, S)."""
        decoder_out = self.predictor.output((code,))  # (N, S, J)
        logits = self.joiner(frame.unsqueeze(1), decoder_out, project_input=False)
        log_probs = adjusted_log_probs(logits, self.blank, self._opts)
        if self._opts.ilme_scale != 0:
            internal = internal_log_probs(self.joiner, decoder_out, self.blank, self._opts)
            log_probs = log_probs - self._opts.ilme_scale * internal
        return log_probs

    def best(self, score: Tensor, code: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the best contexts after a frame, the best first.

        Args:
          score: (N, S, V), of paths that take each token in each context.
          code: (N, S), the contexts.

        Returns:
          Scores, -inf in empty places; for each the place of its context before and the token; and
          their codes; all (N, S).
        """
        vocab_size = self.predictor.vocab_size
        score, index = score.flatten(1).topk(self._ways)  # (N, W)
        parent = index.div(vocab_size, rounding_mode="floor")
        token = index.remainder(vocab_size)
        (code,) = self.predictor.append((code.gather(1, parent),), token, token != self.blank)
        # of the ways to a context the first is the best
        again = ((code.unsqueeze(2) == code.unsqueeze(1)) & self._earlier).any(dim=2)
        lives = ~again & (score >= score[:, :1] - self._opts.beam) & (score > _NEVER)
        rank = lives.cumsum(dim=1) - 1
        fits = lives & (rank < self.size)
        place = rank.masked_fill(~fits, self.size)  # one more place, for the rest
        kept_score, kept_parent, kept_token, kept_code = (
            like.new_full((len(like), self.size + 1), empty).scatter_(1, place, like)[:, : self.size]
            for like, empty in ((score, _NEVER), (parent, 0), (token, self.blank), (code, 0))
        )
        return kept_score, kept_parent, kept_token, kept_code


class ContextBeam(FrameSynchronousSearch[ContextState]):
    """Fast beam search without a graph: a state is a context, and the best path to each lives on.

    Args:
      model: with a stateless predictor whose contexts have numbers.
      opts: beam and limits.
    """

    def __init__(self, model: Transducer, opts: FastBeamOptions) -> None:
        self._contexts = Contexts(model, opts, min(opts.max_contexts, opts.max_states))
        super().__init__(model.joiner, self._contexts.blank)

    def start(self, num: int) -> ContextState:
        """Return the state of ``num`` utterances before the first frame."""
        predictor, size = self._contexts.predictor, self._contexts.size
        return ContextState(initial_scores(num, size, predictor.device), *predictor.start(num, size))

    def final_scores(self, state: ContextState) -> Tensor:
        """Return the scores (N, S): ending is free."""
        return state.score

    def step(self, frame: Tensor, state: ContextState) -> Tuple[ContextState, Tensor, Tensor]:
        """Consume one projected frame (N, J), see :class:`FrameSynchronousSearch`."""
        score = self._contexts.log_probs(frame, state.code) + state.score.unsqueeze(-1)  # (N, S, V)
        score, parent, token, code = self._contexts.best(score, state.code)
        return ContextState(score, code), parent, token
