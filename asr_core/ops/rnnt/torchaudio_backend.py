"""The full RNN-T loss of torchaudio, where a version below 2.9 is installed."""

from types import ModuleType

import torch
from torch import Tensor

from asr_core.ops.rnnt.lattice import Lattice
from asr_core.utils.errors import UserError


def full_loss(logits: Tensor, lattice: Lattice) -> Tensor:
    """Compute the losses (B,) of logits (B, T, S + 1, C), float32, on the CPU or CUDA.

    Paths are added up in float32.

    Raises:
      UserError: torchaudio lacks the loss.
      ValueError: torchaudio does not support such a lattice.
    """
    if (
        not lattice.regular
        or lattice.delay_penalty > 0.0
        or lattice.fast_emit != 0.0
        or bool(lattice.boundary[:, :2].any())
    ):
        raise ValueError(
            "back end torchaudio supports only regular lattices from (0, 0), "
            "without delay penalty and FastEmit"
        )
    if logits.dtype != torch.float32:
        raise ValueError(f"back end torchaudio computes in float32, not {logits.dtype}")
    if bool((lattice.boundary[:, 3] < 1).any()):
        raise ValueError("back end torchaudio needs a frame in each utterance")
    num, frames = (lattice.boundary[:, i].int().contiguous() for i in (2, 3))
    # its lattices end where the longest utterance does
    most_frames, most = int(frames.max()), int(num.max())
    logits = logits[:, :most_frames, : most + 1].contiguous()
    symbols = lattice.symbols[:, :most].int().contiguous()
    return _functional().rnnt_loss(logits, symbols, frames, num, blank=lattice.blank, reduction="none")


def _functional() -> ModuleType:
    """Return torchaudio's module with the loss."""
    try:
        from torchaudio import functional
    except ImportError as e:
        raise UserError("back end torchaudio: pip install 'torchaudio<2.9', of the version of torch") from e
    if not hasattr(functional, "rnnt_loss"):
        raise UserError(
            "this version of torchaudio has no RNN-T loss any more: pip install 'torchaudio<2.9', "
            "or take another back end"
        )
    return functional
