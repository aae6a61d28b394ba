"""The heads of a model in training: which options go together, and what each head's loss weighs."""

from typing import Any, Collection, Dict, Mapping

from asr_core.models.options import options_of
from asr_core.training.loss_options import LossOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

_OF_PRUNED_LOSS = ("prune_range", "lm_scale", "am_scale", "simple_loss_scale")
LOG_NAMES = {"attention_decoder_loss": "attn_decoder_loss"}  # where a loss is logged under another name


def check_heads(params: Mapping[str, Any]) -> None:
    """Refuse heads and weights that contradict each other.

    Args:
      params: model and training options; of the data options ``enable_spec_aug``, if there are any.

    Raises:
      UserError: naming the options.
    """
    model, opts = options_of(params), from_params(LossOptions, params)
    if model.use_cr_ctc:
        if not model.use_ctc:
            raise UserError("--use-cr-ctc 1 compares the CTC posteriors of two views: give --use-ctc 1, too")
        if params.get("enable_spec_aug", False):
            raise UserError("--use-cr-ctc 1 masks each view itself: give --enable-spec-aug 0")
    if not model.use_transducer and (opts.delay_penalty or opts.fast_emit_lambda):
        raise UserError(
            "--delay-penalty and --fast-emit-lambda are about a transducer: give --use-transducer 1"
        )
    if model.use_transducer and model.loss == "full":
        changed = [name for name in _OF_PRUNED_LOSS if getattr(opts, name) != getattr(LossOptions, name)]
        if changed:
            flags = ", ".join("--" + name.replace("_", "-") for name in changed)
            raise UserError(
                f"--loss full has no use for {flags}, which are about the pruned loss: leave them out"
            )
    if model.use_attention_decoder and not model.use_transducer:
        ctc, attention = opts.ctc_loss_scale, opts.attention_decoder_loss_scale
        if abs(ctc + attention - 1.0) > 1e-6:
            raise UserError(
                f"without a transducer --ctc-loss-scale ({ctc:g}) and --attention-decoder-loss-scale ({attention:g}) must sum to 1, "
                "e.g. 0.1 and 0.9"
            )


def transducer_loss_scales(batch_idx_train: int, warm_step: int, simple_loss_scale: float) -> tuple:
    """Weights (simple, pruned) after ``batch_idx_train`` batches: from (1, 0.1) to (simple_loss_scale, 1) in ``warm_step``."""
    if batch_idx_train >= warm_step:
        return simple_loss_scale, 1.0
    done = batch_idx_train / warm_step
    return 1.0 - done * (1.0 - simple_loss_scale), 0.1 + 0.9 * done


def early_emission(opts: LossOptions, batch_idx_train: int) -> Dict[str, float]:
    """What makes a transducer emit early, as arguments of the model; the delay penalty comes in after ``warm_step`` batches.

    Before that the alignments are not yet worth shifting; icefall waits in the same way for the pruned loss to have its full weight.
    """
    penalty = opts.delay_penalty if batch_idx_train >= opts.warm_step else 0.0
    return {
        name: value
        for name, value in (("delay_penalty", penalty), ("fast_emit_lambda", opts.fast_emit_lambda))
        if value != 0.0
    }


def loss_weights(opts: LossOptions, batch_idx_train: int, heads: Collection[str]) -> Dict[str, float]:
    """The weight of each loss, by its name in :class:`~asr_core.models.asr_model.Losses`.

    The CTC loss has the weight 1 where there is no other; the consistency loss comes in over ``warm_step`` batches.

    Args:
      opts: training options.
      batch_idx_train: batches since the start of training.
      heads: names of the losses that the model has.
    """
    simple, pruned = transducer_loss_scales(batch_idx_train, opts.warm_step, opts.simple_loss_scale)
    ctc_alone = not {"simple_loss", "rnnt_loss", "attention_decoder_loss"}.intersection(heads)
    warmth = min(batch_idx_train / opts.warm_step, 1.0) if opts.warm_step > 0 else 1.0
    return {
        "simple_loss": simple,
        "pruned_loss": pruned,
        "rnnt_loss": 1.0,
        "ctc_loss": 1.0 if ctc_alone else opts.ctc_loss_scale,
        "attention_decoder_loss": opts.attention_decoder_loss_scale,
        "intermediate_ctc_loss": opts.intermediate_ctc_loss_scale,
        "cr_loss": opts.cr_loss_scale * warmth,
    }
