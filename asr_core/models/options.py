"""Options of the model."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Mapping, Tuple, Type

from asr_core.encoders.chunk_options import ChunkOptions
from asr_core.encoders.registry import ENCODERS, encoder_spec
from asr_core.encoders.zipformer.options import ZipformerOptions
from asr_core.predictors.options import PredictorOptions
from asr_core.utils.option_values import MAX_LAYERS, MAX_WIDTH, OnlyWith
from asr_core.utils.options import from_params, option

DEFAULT_ENCODER = "zipformer"  # of command lines and checkpoints that name none, as icefall's do
_ENCODER_HELP = "Kind of encoder; each kind has its own options."


@dataclass(frozen=True)
class CommonModelOptions(PredictorOptions, ChunkOptions):
    """Model, for any encoder."""

    encoder: str = option(DEFAULT_ENCODER, _ENCODER_HELP, choices=ENCODERS)
    joiner_dim: int = option(512, "Width of the joiner.", at_least=1, at_most=MAX_WIDTH)
    joiner_decoder_bias: bool = option(
        True, "Give the joiner's projection of the prediction network a bias, too."
    )
    joiner_mode: str = option(
        "add",
        "How the joiner combines encoder and prediction network: tanh of the sum, tanh of the "
        "product, or a learnt gate between both.",
        choices=["add", "multiply", "gated"],
    )
    transducer_type: str = option(
        "classic",
        "classic: softmax over blank and tokens; hat: blank has its own probability, besides a "
        "softmax over the tokens.",
        choices=["classic", "hat"],
    )
    blank_logit_bias: float = option(
        0.0, "Constant added to the blank's logit; above 0 blanks are likely from the start."
    )
    loss: str = option(
        "pruned",
        "Loss of the transducer. pruned: simple and pruned loss; full: sum over all alignments, "
        "without the simple loss' two projections.",
        choices=["pruned", "full"],
    )
    use_transducer: bool = option(True, "Build the prediction network and the joiner.")
    use_ctc: bool = option(False, "Build a CTC head.")
    use_attention_decoder: bool = option(False, "Build an attention decoder.")
    use_cr_ctc: bool = option(
        False,
        "Train on two views of each utterance and make their CTC posteriors agree (CR-CTC); needs "
        "--use-ctc 1 --enable-spec-aug 0.",
    )
    intermediate_ctc_stacks: Tuple[int, ...] = option(
        (),
        "Encoder stacks, or layers, with their own CTC heads in training, e.g. 2,4; from 1.",
        at_least=1,
        at_most=MAX_LAYERS,
    )
    attention_decoder_dim: int = option(
        512,
        "Width of the attention decoder's layers.",
        at_least=1,
        at_most=MAX_WIDTH,
        only_with=OnlyWith("use_attention_decoder"),
    )
    attention_decoder_num_layers: int = option(
        6,
        "Layers of the attention decoder.",
        at_least=1,
        at_most=MAX_LAYERS,
        only_with=OnlyWith("use_attention_decoder"),
    )
    attention_decoder_attention_dim: int = option(
        512,
        "Width of the attention decoder's attention.",
        at_least=1,
        at_most=MAX_WIDTH,
        only_with=OnlyWith("use_attention_decoder"),
    )
    attention_decoder_num_heads: int = option(
        8,
        "Heads of the attention decoder's attention.",
        at_least=1,
        at_most=MAX_LAYERS,
        only_with=OnlyWith("use_attention_decoder"),
    )
    attention_decoder_feedforward_dim: int = option(
        2048,
        "Width inside the attention decoder's feed-forward modules.",
        at_least=1,
        at_most=MAX_WIDTH,
        only_with=OnlyWith("use_attention_decoder"),
    )


@dataclass(frozen=True)
class ModelOptions(ZipformerOptions, CommonModelOptions):
    """Model.

    Lists are comma-separated, one entry per encoder stack; a single value is taken for all stacks.
    """


@functools.lru_cache(maxsize=None)
def options_class(encoder: str) -> Type[CommonModelOptions]:
    """Return the class of all options of models with this encoder: the common ones and its own.

    Raises:
      UserError: there is no such encoder.
    """
    if encoder == DEFAULT_ENCODER:
        return ModelOptions
    spec = encoder_spec(encoder)
    return dataclasses.make_dataclass(
        f"{spec.options.__name__[: -len('Options')]}ModelOptions",
        [("encoder", str, option(encoder, _ENCODER_HELP, choices=ENCODERS))],
        bases=(spec.options, CommonModelOptions),
        namespace={"__doc__": f"Model with encoder {encoder}."},
        frozen=True,
    )


def options_of(params: Mapping[str, object]) -> CommonModelOptions:
    """Return the model's options among ``params``, of the class that belongs to their encoder.

    Raises:
      UserError: a value is malformed or out of range.
    """
    return from_params(options_class(str(params.get("encoder", DEFAULT_ENCODER))), params)
