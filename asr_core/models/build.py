"""The model that its options describe, with random weights."""

from typing import Sequence, cast

from asr_core.encoders.chunked import ChunkedEncoder
from asr_core.encoders.registry import build_encoder
from asr_core.models.asr_model import AsrModel
from asr_core.models.attention_decoder import AttentionDecoder
from asr_core.models.intermediate_ctc import IntermediateCtc
from asr_core.models.joiner import Joiner
from asr_core.models.options import CommonModelOptions
from asr_core.nn.transformer import DecoderConfig
from asr_core.predictors.build import build_predictor
from asr_core.utils.errors import UserError
from asr_core.utils.options import check_values


def build_model(
    opts: CommonModelOptions, vocab_size: int, feature_dim: int = 80, blank_id: int = 0
) -> AsrModel:
    """Build a model with random weights.

    Args:
      opts: the options, as :func:`asr_core.models.options.options_of` makes them.
      vocab_size: number of tokens, blank included.
      feature_dim: features per frame.
      blank_id: id of the blank.

    Raises:
      UserError: options that contradict each other or are out of range.
      ValueError: the options still name a preset, which ``from_params`` expands.
    """
    if getattr(opts, "model_size", ""):
        raise ValueError("options with a preset are made by asr_core.utils.options.from_params")
    check_values(opts)
    if not (opts.use_transducer or opts.use_ctc):
        raise UserError("nothing to train: give --use-transducer 1 or --use-ctc 1")
    encoder_embed, encoder = build_encoder(opts, feature_dim)
    decoder = joiner = attention_decoder = intermediate_ctc = None
    if opts.use_transducer:
        decoder = build_predictor(opts, vocab_size, blank_id)
        joiner = Joiner(
            encoder.output_dim,
            opts.decoder_dim,
            opts.joiner_dim,
            vocab_size,
            decoder_bias=opts.joiner_decoder_bias,
            mode=opts.joiner_mode,
            transducer_type=opts.transducer_type,
            blank_logit_bias=opts.blank_logit_bias,
            blank_id=blank_id,
        )
    if opts.use_attention_decoder:
        attention_decoder = _build_attention_decoder(opts, vocab_size, encoder.output_dim)
    if opts.intermediate_ctc_stacks:
        intermediate_ctc = _build_intermediate_ctc(opts, encoder, vocab_size)
    return AsrModel(
        encoder_embed=encoder_embed,
        encoder=encoder,
        decoder=decoder,
        joiner=joiner,
        encoder_dim=encoder.output_dim,
        decoder_dim=opts.decoder_dim,
        vocab_size=vocab_size,
        use_transducer=opts.use_transducer,
        use_ctc=opts.use_ctc,
        loss=opts.loss,
        attention_decoder=attention_decoder,
        intermediate_ctc=intermediate_ctc,
    )


def _build_attention_decoder(opts: CommonModelOptions, vocab_size: int, memory_dim: int) -> AttentionDecoder:
    if vocab_size < 2:
        raise UserError(
            "an attention decoder needs a vocabulary with a token for the end of the sentence, id 1"
        )
    config = DecoderConfig(
        embed_dim=opts.attention_decoder_dim,
        num_layers=opts.attention_decoder_num_layers,
        attention_dim=opts.attention_decoder_attention_dim,
        num_heads=opts.attention_decoder_num_heads,
        feedforward_dim=opts.attention_decoder_feedforward_dim,
        memory_dim=memory_dim,
    )
    try:
        return AttentionDecoder(vocab_size, config)
    except ValueError as e:
        raise UserError(f"the options of the attention decoder do not fit together: {e}") from e


def _build_intermediate_ctc(
    opts: CommonModelOptions, encoder: ChunkedEncoder, vocab_size: int
) -> IntermediateCtc:
    if not hasattr(encoder, "forward_stacks"):
        raise UserError(
            f"--intermediate-ctc-stacks: the encoder {opts.encoder} has no inner outputs for CTC heads"
        )
    try:
        return IntermediateCtc(
            opts.intermediate_ctc_stacks,
            cast(Sequence[int], encoder.encoder_dim),
            vocab_size,
            encoder.output_downsampling_factor,
        )
    except ValueError as e:
        stacks = ",".join(map(str, opts.intermediate_ctc_stacks))
        raise UserError(f"--intermediate-ctc-stacks {stacks}: {e}") from e
