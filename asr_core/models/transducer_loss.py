"""The losses of a transducer's joiner: simple and pruned, or full."""

from typing import Any, Dict, List, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.ops import rnnt_loss as rnnt


class LatticeInputs(NamedTuple):
    """What a transducer's losses need besides the encoder's output.

    Attributes:
      decoder_out: (N, U + 1, C), outputs of the prediction network.
      symbols: (N, U) int64 labels, padded.
      boundary: (N, 4), see :mod:`asr_core.ops.rnnt_loss`.
      options: arguments that all losses take.
    """

    decoder_out: Tensor
    symbols: Tensor
    boundary: Tensor
    options: Dict[str, Any]


def prepare_lattice(
    decoder: nn.Module,
    encoder_out_lens: Tensor,
    y: List[List[int]],
    device: torch.device,
    options: Dict[str, float],
) -> LatticeInputs:
    """Labels, limits and prediction network's outputs of a batch.

    Args:
      decoder: the prediction network, which has ``blank_id``.
      encoder_out_lens: (N,) valid frames.
      y: N lists of token ids.
      device: where the encoder's output is.
      options: arguments of the losses, e.g. ``delay_penalty``.
    """
    blank_id = decoder.blank_id
    symbols = _pad_labels(y, blank_id, device)
    boundary = torch.zeros((len(y), 4), dtype=torch.int64)
    boundary[:, 2] = torch.tensor([len(labels) for labels in y])
    boundary[:, 3] = encoder_out_lens
    boundary = boundary.to(device)
    decoder_out = decoder(F.pad(symbols, (1, 0), value=blank_id))
    given = {"termination_symbol": blank_id, "boundary": boundary, "reduction": "none", **options}
    return LatticeInputs(decoder_out, symbols, boundary, given)


def pruned_losses(
    joiner: nn.Module,
    simple_projections: Tuple[nn.Module, nn.Module],
    encoder_out: Tensor,
    lattice: LatticeInputs,
    prune_range: int,
    am_scale: float,
    lm_scale: float,
) -> Tuple[Tensor, Tensor]:
    """Simple and pruned losses (N,) of encoder_out (N, T, C).

    Args:
      joiner: the joiner.
      simple_projections: from encoder and decoder outputs to the simple loss' logits, whose sum is a classic transducer's.
      encoder_out: (N, T, C).
      lattice: the rest of the batch.
      prune_range: symbols kept per frame in the pruned loss.
      am_scale, lm_scale: weights of the acoustic-only and the LM-only smoothing of the simple loss.
    """
    am, lm = simple_projections[0](encoder_out), simple_projections[1](lattice.decoder_out)
    with torch.autocast(encoder_out.device.type, enabled=False):
        simple_loss, (px_grad, py_grad) = rnnt.rnnt_loss_smoothed(
            lm=lm.float(),
            am=am.float(),
            symbols=lattice.symbols,
            lm_only_scale=lm_scale,
            am_only_scale=am_scale,
            return_grad=True,
            **lattice.options,
        )
    ranges = rnnt.get_rnnt_prune_ranges(
        px_grad=px_grad, py_grad=py_grad, boundary=lattice.boundary, s_range=prune_range
    )
    am_pruned, lm_pruned = rnnt.do_rnnt_pruning(
        am=joiner.encoder_proj(encoder_out), lm=joiner.decoder_proj(lattice.decoder_out), ranges=ranges
    )
    logits = joiner(am_pruned, lm_pruned, project_input=False)
    with torch.autocast(encoder_out.device.type, enabled=False):
        pruned_loss = rnnt.rnnt_loss_pruned(
            logits=logits.float(), symbols=lattice.symbols, ranges=ranges, **lattice.options
        )
    return simple_loss, pruned_loss


def full_loss(joiner: nn.Module, encoder_out: Tensor, lattice: LatticeInputs) -> Tensor:
    """Losses (N,) over all alignments of encoder_out (N, T, C), without an array of all logits."""
    am, lm = joiner.encoder_proj(encoder_out), joiner.decoder_proj(lattice.decoder_out)
    return rnnt.rnnt_loss_projected(
        am.float(),
        lm.float(),
        joiner.output_linear.weight,
        joiner.output_bias(),
        lattice.symbols,
        combine=joiner.combine,
        factorised_blank=joiner.hat,
        **lattice.options,
    )


def _pad_labels(y: List[List[int]], value: int, device: torch.device) -> Tensor:
    """Token lists as one tensor (N, longest), padded with ``value``."""
    padded = torch.full((len(y), max((len(labels) for labels in y), default=0)), value, dtype=torch.int64)
    for row, labels in zip(padded, y):
        row[: len(labels)] = torch.tensor(labels, dtype=torch.int64)
    return padded.to(device)
