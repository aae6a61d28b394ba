"""The losses of a model's heads: which options go together, and the weight of each loss.

The weights follow icefall's recipes (``zipformer/train.py`` and its forms with CTC, attention
decoder and CR-CTC). With b batches since the start of training, ``--warm-step`` W and the progress
of the warm-up w = min(b / W, 1):

==========================  ==================================================================
loss                        weight
==========================  ==================================================================
``simple_loss``             1 - w (1 - s), s = ``--simple-loss-scale``
``pruned_loss``             0.1 + 0.9 w
``rnnt_loss``               1, where ``--loss full`` sums over all alignments
``ctc_loss``                ``--ctc-loss-scale``; 1 if it is the only loss with targets
``attention_decoder_loss``  ``--attention-decoder-loss-scale``
``intermediate_ctc_loss``   ``--intermediate-ctc-loss-scale``
``cr_loss``                 w times ``--cr-loss-scale``
==========================  ==================================================================

The pruned loss sums over the symbols around those that the simple loss finds likely (Kuang et al.
2022, "Pruned RNN-T for fast, memory-efficient ASR training", https://arxiv.org/abs/2206.13236). As
long as the simple joiner is untrained, its choice is arbitrary: the pruned loss begins with a tenth
of its weight, so that it does not train the model on wrong alignments, and the simple loss, whose
model is only a means, recedes when it has done its work. The consistency loss of CR-CTC (Yao et al.
2024, https://arxiv.org/abs/2410.05101) likewise waits for posteriors that are worth comparing.
"""

import math
from typing import Any, Collection, Dict, Mapping, Tuple

from asr_core.data.cut_rules import FrameNeeds
from asr_core.models.options import CommonModelOptions, options_of
from asr_core.training.loss_options import LossOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import flag, from_params

_OF_PRUNED_LOSS = ("prune_range", "lm_scale", "am_scale", "simple_loss_scale")
_WITH_TARGETS = ("simple_loss", "rnnt_loss", "attention_decoder_loss")  # besides the CTC loss
LOG_NAMES = {"attention_decoder_loss": "attn_decoder_loss"}  # losses that are logged under icefall's name


def check_heads(params: Mapping[str, Any]) -> None:
    """Refuse heads and weights that contradict each other.

    Args:
      params: options of model and losses; of the data options ``enable_spec_aug``, if there.

    Raises:
      UserError: naming the options.
    """
    model, opts = options_of(params), from_params(LossOptions, params)
    if model.use_cr_ctc and not model.use_ctc:
        raise UserError("--use-cr-ctc 1 compares the CTC posteriors of two views: give --use-ctc 1, too")
    if model.use_cr_ctc and params.get("enable_spec_aug", False):
        raise UserError("--use-cr-ctc 1 masks each view itself: give --enable-spec-aug 0")
    if not model.use_transducer and (opts.delay_penalty or opts.fast_emit_lambda):
        raise UserError(
            "--delay-penalty and --fast-emit-lambda are about a transducer: give --use-transducer 1"
        )
    if model.use_transducer and model.loss == "full":
        changed = [name for name in _OF_PRUNED_LOSS if getattr(opts, name) != getattr(LossOptions, name)]
        if changed:
            raise UserError(
                f"--loss full has no use for {', '.join(map(flag, changed))}, which are about the pruned "
                "loss: leave them out"
            )
    if model.use_attention_decoder and not model.use_transducer:
        ctc, attention = opts.ctc_loss_scale, opts.attention_decoder_loss_scale
        if abs(ctc + attention - 1.0) > 1e-6:
            raise UserError(
                f"without a transducer --ctc-loss-scale ({ctc:g}) and --attention-decoder-loss-scale "
                f"({attention:g}) must sum to 1, e.g. 0.1 and 0.9"
            )


def frame_needs(model: CommonModelOptions, opts: LossOptions) -> FrameNeeds:
    """Return how many encoder frames the losses of a model need for a transcript.

    CTC emits at most one token a frame, and a blank between equal ones. The lattice of a regular
    transducer allows any number of tokens at a frame; the pruned loss keeps ``prune_range - 1``.
    """
    if model.use_ctc:
        return FrameNeeds(blanks=True)
    most = opts.prune_range - 1 if model.use_transducer and model.loss != "full" else math.inf
    return FrameNeeds(tokens_per_frame=max(1.0, most))


def transducer_loss_scales(
    batch_idx_train: int, warm_step: int, simple_loss_scale: float
) -> Tuple[float, float]:
    """Return the weights of simple and pruned loss; see the top of this file.

    They move linearly from (1, 0.1) to (``simple_loss_scale``, 1) in ``warm_step`` batches.
    """
    if batch_idx_train >= warm_step:
        return simple_loss_scale, 1.0
    done = batch_idx_train / warm_step
    return 1.0 - done * (1.0 - simple_loss_scale), 0.1 + 0.9 * done


def early_emission(opts: LossOptions, batch_idx_train: int) -> Dict[str, float]:
    """Return the arguments of the model that make a transducer emit early.

    The delay penalty (Kang et al. 2022, https://arxiv.org/abs/2211.00490) starts after
    ``warm_step`` batches, when the alignments are worth shifting: icefall waits in the same way for
    the pruned loss to have its full weight. FastEmit (Yu et al. 2020,
    https://arxiv.org/abs/2010.11148) applies from the start.
    """
    penalty = opts.delay_penalty if batch_idx_train >= opts.warm_step else 0.0
    values = {"delay_penalty": penalty, "fast_emit_lambda": opts.fast_emit_lambda}
    return {name: value for name, value in values.items() if value != 0.0}


def loss_weights(opts: LossOptions, batch_idx_train: int, heads: Collection[str]) -> Dict[str, float]:
    """Return the weight of each loss, by its name in :class:`~asr_core.models.asr_model.Losses`.

    Args:
      opts: final weights and length of the warm-up.
      batch_idx_train: batches since the start of training.
      heads: names of the losses that the model has.
    """
    simple, pruned = transducer_loss_scales(batch_idx_train, opts.warm_step, opts.simple_loss_scale)
    ctc_alone = not set(_WITH_TARGETS).intersection(heads)
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
