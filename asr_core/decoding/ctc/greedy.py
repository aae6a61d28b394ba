"""Greedy search with the CTC head: the best token of each frame."""

from typing import Any, List

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import GreedyAnswer, Hypothesis
from asr_core.decoding.transducer.context_table import adjusted_log_probs

BLANK = 0  # of the CTC loss


@torch.inference_mode()
def ctc_greedy_search(
    model: Any,
    encoder_out: Tensor,
    encoder_out_lens: Tensor,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
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
        self.last = BLANK  # the best token of the last frame


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
        best, token = ctc_log_probs(self._model, encoder_out, self._blank_penalty, self._temperature).max(
            dim=2
        )
        lens = encoder_out_lens.to(token.device)
        valid = torch.arange(token.size(1), device=token.device) < lens.unsqueeze(1)
        before = torch.cat(
            [torch.tensor([[s.last] for s in streams], device=token.device), token[:, :-1]], dim=1
        )
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


def ctc_log_probs(
    model: Any, encoder_out: Tensor, blank_penalty: float = 0.0, temperature: float = 1.0
) -> Tensor:
    """Log-probabilities (N, T, V) of the CTC head."""
    log_probs = model.ctc_output(encoder_out)
    if blank_penalty == 0 and temperature == 1:
        return log_probs
    return adjusted_log_probs(log_probs, BLANK, blank_penalty, temperature)
