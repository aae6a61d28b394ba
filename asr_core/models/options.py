"""Options of the model, and the model built from them."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping, Type

from asr_core.encoders.registry import ENCODERS, encoder_spec
from asr_core.encoders.zipformer.options import ZipformerOptions
from asr_core.predictors.options import PredictorOptions, build_predictor
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, int_entries, option

if TYPE_CHECKING:  # torch is loaded when a model is built, so that programs know their options without it
    from asr_core.models.asr_model import AsrModel
    from asr_core.models.attention_decoder import AttentionDecoder
    from asr_core.models.intermediate_ctc import IntermediateCtc
    from asr_core.models.joiner import Joiner

_ENCODER_HELP = "Kind of encoder; it brings options of its own."


@dataclass
class CommonModelOptions(PredictorOptions):
    """Model, whatever its encoder."""

    encoder: str = option("zipformer", _ENCODER_HELP, choices=list(ENCODERS))
    joiner_dim: int = option(512, "Width of the joiner.")
    joiner_decoder_bias: bool = option(
        True, "Give the joiner's projection of the prediction network a bias, too."
    )
    joiner_mode: str = option(
        "add",
        "How the joiner combines encoder and prediction network: tanh of the sum, tanh of the product, or a learnt gate between both.",
        choices=["add", "multiply", "gated"],
    )
    transducer_type: str = option(
        "classic",
        "classic: softmax over blank and tokens; hat: blank has a probability of its own beside a softmax over the tokens.",
        choices=["classic", "hat"],
    )
    blank_logit_bias: float = option(
        0.0, "Constant added to the blank's logit; above 0 blanks are likely from the start."
    )
    loss: str = option(
        "pruned",
        "Loss of the transducer. pruned: simple and pruned loss; full: sum over all alignments, without the simple loss' two projections.",
        choices=["pruned", "full"],
    )
    causal: bool = option(False, "Chunk-causal convolutions, for streaming; changes the parameters.")
    chunk_size: str = option(
        "16,32,64,-1",
        "Chunk sizes in 50 Hz frames; training draws one per batch, -1 is the whole utterance. One value in decoding.",
    )
    left_context_frames: str = option(
        "64,128,256,-1", "Left contexts in 50 Hz frames, as --chunk-size; -1 is unlimited."
    )
    use_transducer: bool = option(True, "Build the prediction network and the joiner.")
    use_ctc: bool = option(False, "Build a CTC head.")
    use_attention_decoder: bool = option(False, "Build an attention decoder.")
    use_cr_ctc: bool = option(
        False,
        "Train on two views of each utterance and make their CTC posteriors agree (CR-CTC); needs --use-ctc 1 --enable-spec-aug 0.",
    )
    intermediate_ctc_stacks: str = option(
        "", "Encoder stacks, or layers, with a CTC head of their own in training, e.g. 2,4; from 1."
    )
    attention_decoder_dim: int = option(512, "Width of the attention decoder's layers.")
    attention_decoder_num_layers: int = option(6, "Layers of the attention decoder.")
    attention_decoder_attention_dim: int = option(512, "Width of the attention decoder's attention.")
    attention_decoder_num_heads: int = option(8, "Heads of the attention decoder's attention.")
    attention_decoder_feedforward_dim: int = option(
        2048, "Width inside the attention decoder's feed-forward modules."
    )


@dataclass
class ModelOptions(ZipformerOptions, CommonModelOptions):
    """Model.

    Lists are comma-separated, one entry per encoder stack; a single value is taken for all stacks.
    """


@functools.lru_cache(maxsize=None)
def options_class(encoder: str) -> Type[CommonModelOptions]:
    """The dataclass of all options of models with this kind of encoder: the common ones and the encoder's own.

    Raises:
      UserError: there is no such encoder.
    """
    if encoder == "zipformer":
        return ModelOptions
    spec = encoder_spec(encoder)
    return dataclasses.make_dataclass(
        f"{spec.options.__name__[: -len('Options')]}ModelOptions",
        [("encoder", str, option(encoder, _ENCODER_HELP, choices=list(ENCODERS)))],
        bases=(spec.options, CommonModelOptions),
        namespace={"__doc__": f"Model with encoder {encoder}."},
    )


def options_of(params: Mapping[str, Any]) -> CommonModelOptions:
    """The model's options among ``params``, of the class that belongs to their encoder."""
    return from_params(options_class(str(params.get("encoder", "zipformer"))), params)


def resolve(opts: Any) -> Any:
    """``opts`` with the preset filled in where a field still has its default."""
    fields = {f.name: f for f in dataclasses.fields(opts)}
    if "model_size" not in fields:
        return opts
    presets, chosen = fields["model_size"].metadata["presets"], opts.model_size
    if chosen not in ("", *presets):
        raise UserError(f"unknown --model-size {chosen!r}; known: {', '.join(presets)}")
    return dataclasses.replace(
        opts, **{k: v for k, v in presets.get(chosen, {}).items() if getattr(opts, k) == fields[k].default}
    )


def _build_joiner(opts: CommonModelOptions, encoder_dim: int, vocab_size: int, blank_id: int) -> "Joiner":
    from asr_core.models.joiner import Joiner

    if opts.joiner_dim < 1:
        raise UserError(f"--joiner-dim must be positive, got {opts.joiner_dim}")
    if opts.loss not in ("pruned", "full"):
        raise UserError(f"unknown --loss {opts.loss!r}; known: pruned, full")
    sizes = (encoder_dim, opts.decoder_dim, opts.joiner_dim, vocab_size, opts.joiner_decoder_bias)
    try:
        return Joiner(*sizes, opts.joiner_mode, opts.transducer_type, opts.blank_logit_bias, blank_id)
    except ValueError as e:
        raise UserError(f"--joiner-mode, --transducer-type: {e}") from e


def _build_attention_decoder(
    opts: CommonModelOptions, vocab_size: int, memory_dim: int
) -> "AttentionDecoder":
    from asr_core.models.attention_decoder import AttentionDecoder

    sizes = {
        "decoder_dim": opts.attention_decoder_dim,
        "num_decoder_layers": opts.attention_decoder_num_layers,
        "attention_dim": opts.attention_decoder_attention_dim,
        "num_heads": opts.attention_decoder_num_heads,
        "feedforward_dim": opts.attention_decoder_feedforward_dim,
    }
    if min(sizes.values()) < 1:
        raise UserError("the --attention-decoder-... options must be positive")
    if vocab_size < 2:
        raise UserError(
            "an attention decoder needs a vocabulary with a token for the end of the sentence, whose id is 1"
        )
    try:
        return AttentionDecoder(vocab_size, memory_dim=memory_dim, **sizes)
    except ValueError as e:
        raise UserError(f"the options of the attention decoder do not fit together: {e}") from e


def _build_intermediate_ctc(opts: CommonModelOptions, encoder: Any, vocab_size: int) -> "IntermediateCtc":
    from asr_core.models.intermediate_ctc import IntermediateCtc

    if not hasattr(encoder, "forward_stacks"):
        raise UserError(
            f"--intermediate-ctc-stacks: the encoder {opts.encoder} has no inner outputs for CTC heads"
        )
    try:
        return IntermediateCtc(
            int_entries(opts, "intermediate_ctc_stacks"),
            encoder.encoder_dim,
            vocab_size,
            encoder.output_downsampling_factor,
        )
    except ValueError as e:
        raise UserError(f"--intermediate-ctc-stacks {opts.intermediate_ctc_stacks}: {e}") from e


def build_model(
    opts: CommonModelOptions, vocab_size: int, feature_dim: int = 80, blank_id: int = 0
) -> "AsrModel":
    """Build a model with random weights.

    Args:
      opts: the options; a preset is filled in first.
      vocab_size: number of tokens, blank included.
      feature_dim: features per frame.
      blank_id: the blank's token.

    Raises:
      UserError: options that contradict each other.
    """
    from asr_core.models.asr_model import AsrModel

    opts = resolve(opts)
    if not (opts.use_transducer or opts.use_ctc):
        raise UserError("nothing to train: give --use-transducer 1 or --use-ctc 1")
    encoder_embed, encoder = encoder_spec(opts.encoder).build(opts, feature_dim)
    encoder_dim = encoder.output_dim
    decoder = joiner = None
    if opts.use_transducer:
        decoder = build_predictor(opts, vocab_size, blank_id)
        joiner = _build_joiner(opts, encoder_dim, vocab_size, blank_id)
    return AsrModel(
        encoder_embed=encoder_embed,
        encoder=encoder,
        decoder=decoder,
        joiner=joiner,
        encoder_dim=encoder_dim,
        decoder_dim=opts.decoder_dim,
        vocab_size=vocab_size,
        use_transducer=opts.use_transducer,
        use_ctc=opts.use_ctc,
        loss=opts.loss,
        attention_decoder=_build_attention_decoder(opts, vocab_size, encoder_dim)
        if opts.use_attention_decoder
        else None,
        intermediate_ctc=_build_intermediate_ctc(opts, encoder, vocab_size)
        if opts.intermediate_ctc_stacks
        else None,
    )
