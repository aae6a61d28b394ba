"""The consistency loss between two views of the same utterances (CR-CTC, Yao et al. 2024,
https://arxiv.org/abs/2410.05101).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_kl_div(log_probs: Tensor, target_log_probs: Tensor, lens: Tensor) -> Tensor:
    """Return KL(target || prediction) over valid frames: ``sum_v p_target (log p_target - log p)``.

    Args:
      log_probs: (N, T, V) predictions.
      target_log_probs: (N, T, V).
      lens: (N,) valid frames.

    Returns:
      (N,).
    """
    divergence = F.kl_div(log_probs, target_log_probs, reduction="none", log_target=True).sum(dim=2)
    padded = torch.arange(log_probs.size(1), device=log_probs.device).unsqueeze(0) >= lens.to(
        log_probs.device
    ).unsqueeze(1)
    return divergence.masked_fill(padded, 0.0).sum(dim=1)


def consistency_loss(log_probs: Tensor, lens: Tensor) -> Tensor:
    """Return the divergence of each view from the other, into which no gradient flows.

    Args:
      log_probs: (2 N, T, V); rows i and N + i are two views of one utterance.
      lens: (2 N,) valid frames.

    Returns:
      (2 N,).
    """
    target = log_probs.detach().roll(log_probs.size(0) // 2, dims=0)
    return masked_kl_div(log_probs, target, lens)
