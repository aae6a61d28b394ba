"""The CTC loss (Graves et al. 2006), on a GPU by kernels that take lengths from there.

torch's loss wants lengths on the host, and waits for the device several times in each direction.
"""

from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr_core.ops.context import Context
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.host import padded, sent
from asr_core.ops.operators import is_traced

gpu_kernels = gpu.deferred("ctc")


class _CtcLoss(torch.autograd.Function):
    """Losses (N,) of log-probabilities (N, T, V), of which the scores of paths are kept."""

    @staticmethod
    def forward(
        ctx: Context, log_probs: Tensor, labels: Tensor, num_frames: Tensor, num_labels: Tensor, blank: int
    ) -> Tensor:
        log_probs = log_probs.contiguous()
        loss, alpha = gpu_kernels.losses(log_probs, labels, num_frames, num_labels, blank)
        ctx.save_for_backward(log_probs, labels, num_frames, num_labels, loss, alpha)
        ctx.blank = blank
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        log_probs, labels, num_frames, num_labels, loss, alpha = ctx.saved_tensors
        scale = grad.float().masked_fill(~loss.isfinite(), float("nan"))  # as torch's
        args = (log_probs, labels, num_frames, num_labels, ctx.blank, loss, alpha, scale)
        return gpu_kernels.gradient(*args), None, None, None, None


def ctc_loss(log_probs: Tensor, lens: Tensor, y: List[List[int]], blank: int = 0) -> Tensor:
    """Return the CTC losses of a batch; infinity where the labels do not fit in the frames.

    Args:
      log_probs: (N, T, V), normalised; computed in float32.
      lens: (N,) valid frames.
      y: N lists of labels.
      blank: the blank's label.

    Returns:
      (N,), float32.
    """
    with torch.autocast(log_probs.device.type, enabled=False):
        log_probs = log_probs.float()
        if gpu.usable(log_probs) and not is_traced():
            device = log_probs.device
            num_labels = sent(torch.tensor([len(labels) for labels in y]), device)
            labels = padded(y, blank, device)
            return _CtcLoss.apply(log_probs, labels, sent(lens, device).contiguous(), num_labels, blank)
        targets = torch.tensor([label for labels in y for label in labels], dtype=torch.int64)
        target_lens = torch.tensor([len(labels) for labels in y])
        return F.ctc_loss(
            log_probs.transpose(0, 1), targets, lens.cpu(), target_lens, blank=blank, reduction="none"
        )
