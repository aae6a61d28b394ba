"""Options of the losses in speech recognition; light, so that ``--help`` needs no torch."""

from dataclasses import dataclass
from typing import Optional

from asr_core.utils.option_values import OnlyWith
from asr_core.utils.options import option


@dataclass
class LossOptions:
    """Losses: their weights, and how they change while training warms up."""

    warm_step: int = option(
        2000,
        "batches over which the weights of simple and pruned loss move to their final values",
        at_least=0,
    )
    plateau_batches: Optional[int] = option(
        None,
        "batches at the start of training without changes of level (--gain-prob) and without cuts that have "
        "no words (--empty-text keep): both keep a model longer on the plateau on which it writes nothing; "
        "left out: twice --warm-step",
        at_least=0,
    )
    prune_range: int = option(
        5,
        "symbols per frame that the pruned loss keeps",
        at_least=2,
        at_most=1000,
        only_with=OnlyWith("loss", ("pruned",)),
    )
    lm_scale: float = option(
        0.25, "weight of the predictor-only term in the simple loss", at_least=0, at_most=1
    )
    am_scale: float = option(0.0, "weight of the encoder-only term in the simple loss", at_least=0, at_most=1)
    simple_loss_scale: float = option(
        0.5,
        "weight of the simple loss after --warm-step",
        at_least=0,
        only_with=OnlyWith("loss", ("pruned",)),
    )
    delay_penalty: float = option(
        0.0,
        "after --warm-step, score of a transducer's symbol for each frame that it comes before the middle "
        "of the utterance, e.g. 0.01",
        at_least=0,
    )
    fast_emit_lambda: float = option(
        0.0,
        "FastEmit: a transducer's gradients with respect to symbols, not blanks, are multiplied by "
        "1 + this, e.g. 0.005",
        at_least=0,
    )
    ctc_loss_scale: float = option(
        0.2,
        "weight of the CTC loss besides others; 1 if it is the only loss",
        at_least=0,
        only_with=OnlyWith("use_ctc"),
    )
    cr_loss_scale: float = option(
        0.2,
        "weight of the consistency loss of --use-cr-ctc 1, after --warm-step",
        at_least=0,
        only_with=OnlyWith("use_cr_ctc"),
    )
    # Masks hide up to 15 % of an utterance times the ratio; above 6 hardly a frame would be left.
    time_mask_ratio: float = option(
        2.5,
        "number and total length of the time masks of --use-cr-ctc 1, relative to SpecAugment's",
        at_least=0.1,
        at_most=6,
        only_with=OnlyWith("use_cr_ctc"),
    )
    intermediate_ctc_loss_scale: float = option(
        0.1, "weight of the mean of the CTC losses of --intermediate-ctc-stacks", at_least=0
    )
    attention_decoder_loss_scale: float = option(
        0.8,
        "weight of the attention decoder's loss; without a transducer it and --ctc-loss-scale must sum to 1",
        at_least=0,
        only_with=OnlyWith("use_attention_decoder"),
    )
    label_smoothing: float = option(
        0.1,
        "share of the attention decoder's targets that is spread over all tokens",
        at_least=0,
        below=1,
        only_with=OnlyWith("use_attention_decoder"),
    )
