"""The internal language model of a transducer: predictor and joiner without the encoder.

A transducer learns the language of its training texts. Where an external language model knows the
domain better, a share of the internal one is subtracted (Variani et al. 2020, "Hybrid
autoregressive transducer", https://arxiv.org/abs/2003.07705; Meng et al. 2021, "Internal language
model estimation for domain-adaptive end-to-end speech recognition",
https://arxiv.org/abs/2011.01991).
"""

from typing import Tuple

import torch
from torch import Tensor

from asr_core.decoding.beam_options import LogitAdjustment, LogitOptions
from asr_core.decoding.logits import adjusted_log_probs
from asr_core.decoding.protocol import Transducer, TransducerJoiner
from asr_core.decoding.scorers.base import Scorer
from asr_core.decoding.states import States, select
from asr_core.decoding.transducer.predictor import predictor_states

_UNCHANGED = LogitOptions()


def internal_log_probs(
    joiner: TransducerJoiner, decoder_out: Tensor, blank_id: int, opts: LogitAdjustment
) -> Tensor:
    """Return the log-probabilities (..., V) of the internal language model.

    The internal language model of a hybrid autoregressive transducer has no blank: there it is 0,
    so that the blank's scores stay as they are.

    Args:
      joiner: eager or TorchScript; one without ``internal_lm``, from another library, gets zeros as
        the encoder's part.
      decoder_out: (..., J) projected predictor outputs.
      blank_id: the blank's token.
      opts: blank penalty and temperature.
    """
    internal_lm = getattr(joiner, "internal_lm", None)
    if internal_lm is not None:
        logits = internal_lm(decoder_out)
    else:
        logits = joiner(torch.zeros_like(decoder_out), decoder_out, project_input=False)
    log_probs = adjusted_log_probs(logits, blank_id, opts)
    return log_probs.masked_fill_(log_probs == float("-inf"), 0.0)


class InternalLmScorer(Scorer):
    """Minus ``scale`` times the internal language model's log-probability of a token, given that it
    is not blank.

    Args:
      model: eager or TorchScript.
      scale: weight of what is subtracted.
    """

    def __init__(self, model: Transducer, scale: float) -> None:
        self._joiner = model.joiner
        self._predictor = predictor_states(model)
        self._scale = scale

    def start(self, num: int, beam: int) -> States:
        """Return the predictor's states, see :class:`Scorer`."""
        return self._predictor.start(num, beam)

    def extend(self, states: States, token: Tensor, emits: Tensor) -> Tuple[Tensor, States]:
        """Score one more token, see :class:`Scorer`; the joiner is run only where a token is
        emitted.
        """
        blank, score = self._predictor.blank_id, torch.zeros(token.shape, device=token.device)
        if not bool(emits.any()):
            return score, states
        decoder_out = self._predictor.output(select(states, emits))  # (M, J), M emitted tokens
        log_probs = internal_log_probs(self._joiner, decoder_out, blank, _UNCHANGED)  # (M, V)
        log_probs[:, blank] = float("-inf")
        found = log_probs.log_softmax(dim=1).gather(1, token[emits].unsqueeze(1)).squeeze(1)  # (M,)
        score[emits] = -self._scale * found.float()
        return score, self._predictor.append(states, token, emits)

    def finish(self, states: States) -> Tensor:
        """Return zeros, see :class:`Scorer`."""
        return torch.zeros(states[0].shape[:2], device=states[0].device)
