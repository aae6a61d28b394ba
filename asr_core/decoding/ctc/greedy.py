"""Greedy search with the CTC head: the best token of each frame."""

from typing import List

import torch
from torch import Tensor

from asr_core.decoding.beam_options import LogitAdjustment, LogitOptions
from asr_core.decoding.hypothesis import GreedyAnswer, Hypothesis
from asr_core.decoding.logits import adjusted_log_probs, single
from asr_core.decoding.protocol import CtcModel

BLANK = 0  # of the CTC loss
_UNCHANGED = LogitOptions()


@torch.inference_mode()
def ctc_greedy_search(
    model: CtcModel,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    opts: LogitAdjustment = _UNCHANGED,
) -> List[Hypothesis]:
    """Choose the best token of each frame; repeats are merged and blanks removed.

    Args:
      model: eager or TorchScript.
      encoder_out: (N, T, C).
      encoder_out_lens: (N,) int64.
      opts: blank penalty and temperature, after which the log-probabilities are normalised again.
    """
    search = StreamingCtcGreedySearch(model, opts)
    streams = [search.new_stream() for _ in range(encoder_out.size(0))]
    search.advance(streams, encoder_out, encoder_out_lens)
    return [s.hypothesis() for s in streams]


class CtcGreedyStream(GreedyAnswer):
    """The state of CTC greedy search in one stream.

    Attributes:
      last: the best token of the last frame.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last = BLANK


class StreamingCtcGreedySearch:
    """CTC greedy search over streams, see :class:`~asr_core.decoding.protocol.StreamingSearch`.

    Arguments as of :func:`ctc_greedy_search`.
    """

    def __init__(self, model: CtcModel, opts: LogitAdjustment = _UNCHANGED) -> None:
        self._model = model
        self._opts = opts

    def new_stream(self) -> CtcGreedyStream:
        """Return the state of a new stream."""
        return CtcGreedyStream()

    @torch.inference_mode()
    def advance(self, streams: List[CtcGreedyStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume the next frames of each stream; ``encoder_out`` is (N, T, C)."""
        best, token = ctc_log_probs(self._model, encoder_out, self._opts).max(dim=2)  # (N, T)
        lens = encoder_out_lens.to(token.device)
        valid = torch.arange(token.size(1), device=token.device) < lens.unsqueeze(1)
        last = torch.tensor([[s.last] for s in streams], device=token.device)
        before = torch.cat([last, token[:, :-1]], dim=1)  # (N, T), the best token one frame earlier
        emits = valid & (token != BLANK) & (token != before)
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


def ctc_log_probs(model: CtcModel, encoder_out: Tensor, opts: LogitAdjustment = _UNCHANGED) -> Tensor:
    """Return the log-probabilities (N, T, V) of the CTC head for encoder output (N, T, C)."""
    log_probs = model.ctc_output(single(encoder_out))
    if opts.blank_penalty == 0 and opts.temperature == 1:
        return log_probs
    return adjusted_log_probs(log_probs, BLANK, opts)
