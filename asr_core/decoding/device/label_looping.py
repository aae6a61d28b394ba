"""Greedy search on the device: an outer loop over labels, an inner one over frames."""

from typing import List, Optional

import numpy as np
import torch
from torch import Tensor

from asr_core.decoding.beam_options import GreedyOptions
from asr_core.decoding.device.automata import boost_rows
from asr_core.decoding.device.automata import phrases as automaton_of
from asr_core.decoding.device.frames import FrameBuffer
from asr_core.decoding.device.predictor import NumberedStates, device_states
from asr_core.decoding.device.replay import Repeated, Watch, kept, power_of_two, rows_for
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import Transducer
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.models.joiner import Joiner
from asr_core.ops.gpu import dispatch
from asr_core.utils.device import to_host

kernels = dispatch.deferred("label_looping")
_WINDOW = 8  # frames in which a round looks for the next label
_ROUNDS = 16  # of a graph; after each graph the host sees whether all utterances have ended
_MAX_SYM_PER_FRAME = 8  # of the kernel, which makes room for as many
_NONE = -1  # the label of a round that found none


@torch.inference_mode()
def label_looping_search(
    model: Transducer,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: GreedyOptions = GreedyOptions(),
    *,
    phrases: Optional[ContextGraph] = None,
) -> List[Hypothesis]:
    """Search a whole batch for the best token at every frame, on the device of the model.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: tokens per frame, blank penalty and temperature.
      phrases: see :func:`~asr_core.decoding.transducer.greedy.greedy_search`.
    """
    num, num_frames = encoder_out.shape[:2]
    if not num * num_frames:
        return [Hypothesis([], [], 0.0) for _ in range(num)]
    x = model.joiner.encoder_proj(encoder_out)
    if phrases is None and opts.max_sym_per_frame <= _MAX_SYM_PER_FRAME and dispatch.usable(x):
        fused = kept(model, "one launch", lambda: OneLaunch.of(model))
        if fused is not None:
            return fused(x, encoder_out_lens, opts)
    rows, room = rows_for(num), power_of_two(num * num_frames)
    search = kept(
        model,
        ("label looping", opts, phrases, rows, room, x.dtype),
        lambda: LabelLooping(model, opts, phrases, rows=rows, room=room, like=x),
    )
    return search(x, encoder_out_lens)


class OneLaunch:
    """Greedy search as one Triton kernel, for the usual transducer.

    Args:
      joiner: classic, with a sum.
      predictor: stateless, with few contexts.
      rows: (number of contexts, J) its projected outputs.
    """

    def __init__(self, joiner: Joiner, predictor: NumberedStates, rows: Tensor) -> None:
        self._predictor, self._rows = predictor, rows
        contexts = predictor.contexts
        start = int(contexts.start(1))
        self._contexts = kernels.Contexts(start, contexts.base, contexts.keep)
        self._output = kernels.output_of(joiner.output_linear.weight, joiner.output_bias())

    @classmethod
    def of(cls, model: Transducer) -> Optional["OneLaunch"]:
        """Return the search of ``model``; None if the kernel is not for its kind."""
        joiner: object = model.joiner
        if not isinstance(joiner, Joiner) or joiner.mode != "add" or joiner.hat:
            return None
        if not dispatch.usable(joiner.output_linear.weight):
            return None
        predictor = device_states(model)
        if not isinstance(predictor, NumberedStates) or predictor.rows is None:
            return None
        return cls(joiner, predictor, predictor.rows)

    def __call__(self, x: Tensor, lens: Tensor, opts: GreedyOptions) -> List[Hypothesis]:
        """Search projected frames ``x`` (N, T, J) with lengths ``lens`` (N,)."""
        found = kernels.label_looping(
            x,
            lens,
            self._rows,
            self._output,
            self._contexts,
            blank=self._predictor.blank_id,
            max_sym=opts.max_sym_per_frame,
            blank_penalty=opts.blank_penalty,
            temperature=opts.temperature,
        )
        counts, scores = found.number.tolist(), found.score.tolist()
        both = to_host(torch.stack([found.tokens, found.frames])[..., : max(counts)]).numpy()
        return [
            Hypothesis(both[0, i, :n].tolist(), both[1, i, :n].tolist(), score)
            for i, (n, score) in enumerate(zip(counts, scores))
        ]


class LabelLooping:
    """Greedy search of up to ``rows`` utterances.

    The context changes only where a token is emitted, and most frames emit none. So in each round
    every utterance looks at its next W frames in its present context, and jumps behind the first
    token it finds (label looping: Bataev et al. 2024, https://arxiv.org/abs/2406.06220).

    Args:
      model, opts, phrases: see :func:`label_looping_search`.
      rows: utterances.
      room: frames of all utterances together, padding counted.
      like: (N, T, J) projected frames, of the type of all.
    """

    def __init__(
        self,
        model: Transducer,
        opts: GreedyOptions,
        phrases: Optional[ContextGraph],
        *,
        rows: int,
        room: int,
        like: Tensor,
    ) -> None:
        self._joiner = model.joiner
        self._predictor = device_states(model)
        self._opts = opts
        device = like.device
        self._boosts: Optional[Tensor] = None  # (S, V) of S states in the phrases
        if phrases is not None:
            size = self._predictor.vocab_size
            self._boosts = boost_rows(phrases, size, device)
            self._phrases = automaton_of(phrases, size, device)
        self._phrase = torch.zeros(rows, dtype=torch.int64, device=device)
        self._buffer = FrameBuffer(rows, room, like)
        self._window = torch.arange(_WINDOW, device=device)
        self._start = self._predictor.start(rows)
        self._states = tuple(s.clone(memory_format=torch.contiguous_format) for s in self._start)
        self._position = torch.zeros(rows, dtype=torch.int64, device=device)
        self._repeats = torch.zeros_like(self._position)  # tokens that the frame has given already
        self._score = torch.zeros(rows, device=device)
        self._found = torch.full((2, _ROUNDS, rows), _NONE, device=device)  # labels, frames
        self._done = torch.zeros(1, dtype=torch.bool, device=device)
        self._watch = Watch(device)
        self._rounds = Repeated(self._round, _ROUNDS, device)

    def __call__(self, x: Tensor, lens: Tensor) -> List[Hypothesis]:
        """Search projected frames ``x`` (N, T, J) with lengths ``lens`` (N,)."""
        self._buffer.fill(x, lens)
        for state, start in zip(self._states, self._start):
            state.copy_(start)
        for counter in (self._position, self._repeats, self._score, self._phrase):
            counter.zero_()
        self._watch.start()
        parts: List[Tensor] = []
        done = False
        while not done:
            self._rounds()
            parts.append(self._found.clone())
            done = self._watch.look(self._done)
        num = len(lens)
        found = torch.cat(parts, dim=1)[..., :num].cpu().numpy()
        return _hypotheses(found[0], found[1], self._score[:num].tolist())

    def _round(self, k: int) -> None:
        """Let each utterance look for its next token; utterances that have ended stay as they
        are.
        """
        blank, max_sym, window = self._predictor.blank_id, self._opts.max_sym_per_frame, self._window
        time = self._position.unsqueeze(1) + window  # (N, W)
        within = time < self._buffer.lens.unsqueeze(1)
        decoder_out = self._predictor.output(self._states).unsqueeze(1)  # (N, 1, J)
        logits = self._joiner(self._buffer.at(time), decoder_out, project_input=False)  # (N, W, V)
        log_probs = adjusted_log_probs(logits, blank, self._opts)
        if self._boosts is not None:
            log_probs = log_probs + self._boosts[self._phrase].unsqueeze(1)
        best, token = log_probs.max(dim=-1)  # (N, W)
        emits = (token != blank) & within
        first = window.masked_fill(~emits, _WINDOW).amin(dim=1)  # (N,)
        found = first < _WINDOW
        first = first.clamp_(max=_WINDOW - 1)
        used = within & (window <= first.unsqueeze(1))
        self._score += best.masked_fill(~used, 0.0).sum(dim=1)
        emitted = token.gather(1, first.unsqueeze(1)).squeeze(1)  # (N,)
        at = self._position + first
        for state, new in zip(self._states, self._predictor.append(self._states, emitted, found)):
            state.copy_(new)
        if self._boosts is not None:
            _, to = self._phrases.look_up(self._phrase, emitted)
            self._phrase.copy_(torch.where(found, to, self._phrase))
        count = self._repeats.masked_fill(first > 0, 0) + 1
        leave = ~found | (count >= max_sym)
        self._repeats.copy_(count.masked_fill(leave, 0))
        torch.add(at, leave, out=self._position)
        self._found[0, k].copy_(emitted.masked_fill(~found, _NONE))
        self._found[1, k].copy_(at)
        if k == _ROUNDS - 1:
            self._done.copy_((self._position >= self._buffer.lens).all().view(1))


def _hypotheses(labels: np.ndarray, frames: np.ndarray, scores: List[float]) -> List[Hypothesis]:
    """Return the hypotheses of N utterances from labels and frames (R, N) of R rounds."""
    emits = labels.T != _NONE  # (N, R)
    ends = np.cumsum(emits.sum(axis=1))[:-1]
    tokens, times = (np.split(x.T[emits], ends) for x in (labels, frames))
    return [Hypothesis(t.tolist(), f.tolist(), score) for t, f, score in zip(tokens, times, scores)]
