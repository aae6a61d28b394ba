"""Rescoring: hypotheses of modified beam search scored again, whole, by a neural language model."""

from typing import Dict, List, Optional

import torch
from torch import Tensor

from asr_core.decoding.hypothesis import Hypothesis
from asr_core.lm.neural import NeuralLm
from asr_core.lm.ngram import NgramLm

LM_SCALES = tuple(round(0.10 + 0.01 * i, 2) for i in range(40))  # 0.10 .. 0.49
LODR_LM_SCALES = tuple(round(0.04 + 0.02 * i, 2) for i in range(28))  # 0.04 .. 0.58
LODR_SCALES = tuple(round(0.05 + 0.05 * i, 2) for i in range(19))  # 0.05 .. 0.95

_BATCH_TOKENS = 4000  # that a language model scores at once


@torch.inference_mode()
def rescore(
    nbest: List[List[Hypothesis]], lm: NeuralLm, ngram: Optional[NgramLm] = None
) -> Dict[str, List[Hypothesis]]:
    """Choose hypotheses with many weights of the language model.

    Without ``ngram`` the total is am + scale * lm. With it (LODR, the low-order density ratio of
    Zheng et al. 2022, https://arxiv.org/abs/2203.16776) it is am / scale + lm - lodr_scale * ngram.
    These are natural log-probabilities of whole hypotheses; for lm and ngram the end of the
    sentence counts.

    Args:
      nbest: hypotheses of each utterance.
      lm: over the same tokens.
      ngram: over token ids.

    Returns:
      The chosen hypotheses by name of the weights: ``nnlm_scale_0.10`` or
      ``nnlm_scale_0.04_lodr_scale_0.05`` and so on; their ``log_prob`` stays that of the search.
    """
    flat = [hyp for hyps in nbest for hyp in hyps]
    sizes = [len(hyps) for hyps in nbest]
    lm_scores = _sentence_scores(lm, [hyp.tokens for hyp in flat])  # (M,)
    am_scores = torch.tensor([hyp.log_prob for hyp in flat], dtype=torch.float64)  # (M,)

    def choose(total: Tensor) -> List[Hypothesis]:
        return [hyps[int(scores.argmax())] for hyps, scores in zip(nbest, total.split(sizes))]

    if ngram is None:
        return {f"nnlm_scale_{scale:.2f}": choose(am_scores + scale * lm_scores) for scale in LM_SCALES}
    ngram_scores = torch.tensor([ngram.sentence_log_prob(hyp.tokens) for hyp in flat], dtype=torch.float64)
    out: Dict[str, List[Hypothesis]] = {}
    for scale in LODR_LM_SCALES:
        for lodr_scale in LODR_SCALES:
            total = am_scores / scale + lm_scores - lodr_scale * ngram_scores
            out[f"nnlm_scale_{scale:.2f}_lodr_scale_{lodr_scale:.2f}"] = choose(total)
    return out


def _sentence_scores(lm: NeuralLm, sentences: List[List[int]]) -> Tensor:
    """Return the log-probabilities (M,) of sentences, scored in batches of similar length."""
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    out = torch.zeros(len(sentences), dtype=torch.float64)
    while order:
        size = max(1, _BATCH_TOKENS // (len(sentences[order[-1]]) + 1))
        batch, order = order[-size:], order[:-size]
        out[batch] = lm.sentence_log_probs([sentences[i] for i in batch]).cpu().double()
    return out
