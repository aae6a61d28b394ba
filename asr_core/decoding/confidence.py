"""Confidences of tokens, computed from the distributions that a search chose them from.

After any search, predictor and joiner run once more along the tokens found, each at the frame that
emitted it; a CTC head needs its posteriors at these frames only. The measures are normalised to
0 .. 1 as in Laptev and Ginsburg, "Fast entropy-based methods of word-level confidence estimation
for end-to-end automatic speech recognition" (SLT 2022), section 3: with H the entropy of the
distribution and H_max that of V equally probable tokens,
(exp(-H) - exp(-H_max)) / (1 - exp(-H_max)).
"""

import math
from dataclasses import dataclass
from typing import Any, List, Sequence

import torch
from torch import Tensor

from asr_core.decoding.ctc.greedy import ctc_log_probs
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.method import Head, Job
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.options import ConfidenceOptions
from asr_core.decoding.protocol import RecognitionModel, SearchStream, StreamingSearch, Transducer
from asr_core.decoding.registry import get_method
from asr_core.decoding.transducer.predictor import predictor_states

_BATCH = 64  # hypotheses whose distributions are in memory at a time


@torch.inference_mode()
def with_confidences(
    job: Job, rows: Sequence[int], hypotheses: Sequence[Hypothesis], opts: ConfidenceOptions
) -> List[Hypothesis]:
    """Return hypotheses with a confidence for each token.

    Args:
      job: the batch that was searched. Its options name the head, and the changes to the
        distributions before the search saw them.
      rows: for each hypothesis its utterance, a row of ``job.encoder_out``.
      hypotheses: found by any search of that head.
      opts: the measure.
    """
    out: List[Hypothesis] = []
    for begin in range(0, len(hypotheses), _BATCH):
        part = hypotheses[begin : begin + _BATCH]
        for hyp, log_probs in zip(part, token_log_probs(job, rows[begin : begin + _BATCH], part)):
            chosen = torch.tensor(hyp.tokens, device=log_probs.device, dtype=torch.int64)
            out.append(hyp._replace(confidences=measure(log_probs, chosen, opts).tolist()))
    return out


def token_log_probs(job: Job, rows: Sequence[int], hypotheses: Sequence[Hypothesis]) -> List[Tensor]:
    """Return the distributions that the tokens of hypotheses were chosen from.

    Args:
      job, rows, hypotheses: see :func:`with_confidences`.

    Returns:
      Natural log-probabilities (L, V) of each hypothesis with L tokens.
    """
    device, lens = job.encoder_out.device, [len(hyp.tokens) for hyp in hypotheses]
    frames = torch.zeros(len(lens), max(lens, default=0), dtype=torch.int64)
    tokens = torch.zeros_like(frames)
    for i, hyp in enumerate(hypotheses):
        frames[i, : lens[i]] = torch.tensor(hyp.timestamps, dtype=torch.int64)
        tokens[i, : lens[i]] = torch.tensor(hyp.tokens, dtype=torch.int64)
    utterance = torch.tensor(list(rows), dtype=torch.int64, device=device).unsqueeze(1)
    at = job.encoder_out[utterance, frames.to(device)]
    if get_method(job.opts.decoding_method).head is Head.CTC:
        log_probs = ctc_log_probs(job.model, at, job.opts)
    else:
        log_probs = _transducer_log_probs(job.model, at, tokens.to(device), job.opts)
    return [log_probs[i, :n] for i, n in enumerate(lens)]


def _transducer_log_probs(model: Transducer, at: Tensor, tokens: Tensor, search: SearchOptions) -> Tensor:
    """Return log-probabilities (N, L, V) at frames (N, L, C), after the tokens (N, L) before."""
    predictor = predictor_states(model)
    state = predictor.start(len(tokens))
    outputs = []
    grows = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    for position in range(tokens.size(1)):
        outputs.append(predictor.output(state))
        state = predictor.append(state, tokens[:, position], grows)
    if not outputs:
        return at.new_zeros(len(tokens), 0, predictor.vocab_size)
    logits = model.joiner(model.joiner.encoder_proj(at), torch.stack(outputs, dim=1), project_input=False)
    return adjusted_log_probs(logits, predictor.blank_id, search)


def measure(log_probs: Tensor, tokens: Tensor, opts: ConfidenceOptions) -> Tensor:
    """Return the confidences (L,), 0 to 1, of tokens (L,) chosen out of distributions (L, V)."""
    if opts.confidence_measure == "prob":
        return log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1).exp()
    size, alpha = log_probs.size(1), opts.confidence_alpha
    log_probs = log_probs.double()
    if opts.confidence_measure == "gibbs":
        entropy, most = -(log_probs.exp() * log_probs).nan_to_num(0.0).sum(dim=1), math.log(size)
    elif opts.confidence_measure == "tsallis":
        entropy = ((alpha * log_probs).exp().sum(dim=1) - 1) / (1 - alpha)
        most = (size ** (1 - alpha) - 1) / (1 - alpha)
    else:  # renyi
        entropy, most = (alpha * log_probs).logsumexp(dim=1) / (1 - alpha), math.log(size)
    return (((-entropy).exp() - math.exp(-most)) / (1 - math.exp(-most))).clamp(0.0, 1.0)


class _ConfidentStream:
    """A stream of another search, and the encoder output that it has consumed.

    Attributes:
      inner: the stream.
      frames: encoder outputs (T, C) of each chunk.
    """

    def __init__(self, inner: SearchStream, owner: "ConfidentSearch") -> None:
        self.inner = inner
        self.frames: List[Tensor] = []
        self._owner = owner

    def hypothesis(self) -> Hypothesis:
        """Return the best hypothesis up to now, with confidences."""
        hypothesis = self.inner.hypothesis()
        if not hypothesis.tokens:
            return hypothesis._replace(confidences=[])
        return self._owner.confident(hypothesis, torch.cat(self.frames).unsqueeze(0))


@dataclass(eq=False)
class ConfidentSearch:
    """A search over streams whose hypotheses have confidences.

    The encoder output of each stream is kept for them.

    Attributes:
      inner: any search over streams, see :class:`~asr_core.decoding.protocol.StreamingSearch`.
      model: the model that it searches.
      search: its options.
      opts: the measure.
    """

    inner: StreamingSearch[Any]
    model: RecognitionModel
    search: SearchOptions
    opts: ConfidenceOptions

    def new_stream(self) -> _ConfidentStream:
        """Return the state of a new stream."""
        return _ConfidentStream(self.inner.new_stream(), self)

    def advance(self, streams: List[_ConfidentStream], encoder_out: Tensor, encoder_out_lens: Tensor) -> None:
        """Consume ``encoder_out[i, :encoder_out_lens[i]]`` as the next frames of ``streams[i]``."""
        self.inner.advance([stream.inner for stream in streams], encoder_out, encoder_out_lens)
        for stream, frames, n in zip(streams, encoder_out, encoder_out_lens.tolist()):
            stream.frames.append(frames[:n])

    def confident(self, hypothesis: Hypothesis, encoder_out: Tensor) -> Hypothesis:
        """Return ``hypothesis`` with the confidences of its tokens in ``encoder_out`` (1, T, C)."""
        lens = torch.tensor([encoder_out.size(1)])
        job = Job(model=self.model, encoder_out=encoder_out, lens=lens, opts=self.search)
        return with_confidences(job, [0], [hypothesis], self.opts)[0]
