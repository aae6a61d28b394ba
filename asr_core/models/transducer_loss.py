"""The losses of a transducer's joiner: simple and pruned, or full."""

from typing import Callable, List, NamedTuple, Optional, Tuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_core.models.joiner import Joiner
from asr_core.ops import rnnt_loss as rnnt
from asr_core.ops.gpu import dispatch as gpu
from asr_core.ops.host import padded, sent
from asr_core.predictors.protocol import Predictor


class LossArguments(TypedDict):
    """Arguments that all transducer losses take, such as ``boundary`` (N, 4).

    See :mod:`asr_core.ops.rnnt_loss`.
    """

    boundary: Tensor
    termination_symbol: int
    reduction: str
    delay_penalty: float
    fast_emit_lambda: float


class Smoothing(NamedTuple):
    """Interpolation of the simple loss' scores with those of one of its two sides only.

    Attributes:
      am_scale: weight of scores from the encoder's output only.
      lm_scale: weight of scores from the prediction network's output only.
    """

    am_scale: float
    lm_scale: float


class LatticeInputs(NamedTuple):
    """Inputs of a transducer's losses besides the encoder's output.

    Attributes:
      decoder_out: (N, U + 1, C), output of the prediction network.
      symbols: (N, U) int64 labels, padded.
      arguments: arguments that all losses take.
      cpu_boundary: (N, 4), the boundary among them, on the CPU; numbers of frames may be smaller.
    """

    decoder_out: Tensor
    symbols: Tensor
    arguments: LossArguments
    cpu_boundary: Tensor


def prepare_lattice(
    decoder: Predictor,
    encoder_out_lens: Tensor,
    y: List[List[int]],
    *,
    device: torch.device,
    delay_penalty: float,
    fast_emit_lambda: float,
    least_lens: Optional[Tensor] = None,
) -> LatticeInputs:
    """Prepare labels, boundaries and the prediction network's output of a batch.

    Args:
      decoder: prediction network.
      encoder_out_lens: (N,) valid frames.
      y: N lists of token ids.
      device: device of the encoder's output.
      delay_penalty, fast_emit_lambda: see :mod:`asr_core.ops.rnnt_loss`.
      least_lens: (N,) lower bounds of ``encoder_out_lens``, on the CPU; without them the host waits
        for lengths that are on another device.
    """
    blank_id = decoder.blank_id
    symbols = padded(y, blank_id, device)
    host = torch.zeros((len(y), 4), dtype=torch.int64)
    host[:, 2] = torch.tensor([len(labels) for labels in y])
    own = encoder_out_lens.device.type == "cpu" or least_lens is None
    host[:, 3] = encoder_out_lens if own or least_lens is None else least_lens
    boundary = sent(host, device)
    if not own:
        boundary[:, 3] = encoder_out_lens
    decoder_out = decoder(F.pad(symbols, (1, 0), value=blank_id))
    return LatticeInputs(
        decoder_out,
        symbols,
        LossArguments(
            boundary=boundary,
            termination_symbol=blank_id,
            reduction="none",
            delay_penalty=delay_penalty,
            fast_emit_lambda=fast_emit_lambda,
        ),
        host,
    )


def pruned_losses(
    joiner: Joiner,
    simple_projections: Tuple[nn.Module, nn.Module],
    encoder_out: Tensor,
    lattice: LatticeInputs,
    *,
    prune_range: int,
    smoothing: Smoothing,
) -> Tuple[Tensor, Tensor]:
    """Compute the simple and the pruned losses.

    See Kuang et al. 2022, https://arxiv.org/abs/2206.13236. The simple loss joins encoder and
    prediction network by a sum of logits, which is cheap. Its gradients show which symbols matter
    at each frame, and the joiner is evaluated only for those.

    Args:
      joiner: joiner.
      simple_projections: maps from the encoder's and the prediction network's output to the simple
        loss' logits.
      encoder_out: (N, T, C).
      lattice: the rest of the batch.
      prune_range: symbols kept per frame in the pruned loss.
      am_scale, lm_scale: weights of the acoustic-only and the LM-only smoothing of the simple loss.

    Returns:
      Simple losses (N,) and pruned losses (N,).
    """
    am, lm = simple_projections[0](encoder_out), simple_projections[1](lattice.decoder_out)
    with torch.autocast(encoder_out.device.type, enabled=False):
        simple_loss, (px_grad, py_grad) = rnnt.rnnt_loss_smoothed(
            lm=_at_least_float(lm),
            am=_at_least_float(am),
            symbols=lattice.symbols,
            lm_only_scale=smoothing.lm_scale,
            am_only_scale=smoothing.am_scale,
            return_grad=True,
            **lattice.arguments,
        )
    ranges = rnnt.get_rnnt_prune_ranges(
        px_grad, py_grad, lattice.arguments["boundary"], prune_range, cpu_boundary=lattice.cpu_boundary
    )
    am, lm = joiner.encoder_proj(encoder_out), joiner.decoder_proj(lattice.decoder_out)
    if gpu.usable(am, lm):  # without an array of all logits
        pruned_loss = rnnt.rnnt_loss_pruned_projected(
            am,
            lm,
            joiner.output_linear.weight,
            joiner.output_bias(),
            lattice.symbols,
            ranges,
            combine=_combination(joiner),
            factorised_blank=joiner.hat,
            **lattice.arguments,
        )
        return simple_loss, pruned_loss
    am_pruned, lm_pruned = rnnt.do_rnnt_pruning(am=am, lm=lm, ranges=ranges)
    logits = joiner(am_pruned, lm_pruned, project_input=False)  # (N, T, prune_range, V)
    with torch.autocast(encoder_out.device.type, enabled=False):
        pruned_loss = rnnt.rnnt_loss_pruned(
            logits=_at_least_float(logits), symbols=lattice.symbols, ranges=ranges, **lattice.arguments
        )
    return simple_loss, pruned_loss


def full_loss(joiner: Joiner, encoder_out: Tensor, lattice: LatticeInputs) -> Tensor:
    """Compute the losses over all alignments, without an array of all logits.

    Args:
      joiner: joiner.
      encoder_out: (N, T, C).
      lattice: the rest of the batch.

    Returns:
      (N,)
    """
    am, lm = joiner.encoder_proj(encoder_out), joiner.decoder_proj(lattice.decoder_out)
    return rnnt.rnnt_loss_projected(
        _at_least_float(am),
        _at_least_float(lm),
        joiner.output_linear.weight,
        joiner.output_bias(),
        lattice.symbols,
        combine=_combination(joiner),
        factorised_blank=joiner.hat,
        **lattice.arguments,
    )


def _combination(joiner: Joiner) -> Callable[[Tensor, Tensor], Tensor]:
    """Return how a joiner combines its projections, by a name that back ends know."""
    return rnnt.tanh_of_sum if joiner.mode == "add" else joiner.combine


def _at_least_float(x: Tensor) -> Tensor:
    """Return x (...) in float32, or unchanged if it is more precise: losses are long sums."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
