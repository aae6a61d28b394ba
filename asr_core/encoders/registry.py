"""The kinds of encoder that ``--encoder`` chooses from.

A new one is an entry here (or in :data:`ENCODERS` at run time), its options and its modules.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, Protocol, Tuple, Union, cast

from asr_core.encoders.conformer import options as conformer
from asr_core.encoders.contextnet import options as contextnet
from asr_core.encoders.lstm.options import LstmOptions
from asr_core.encoders.zipformer.options import ZipformerOptions
from asr_core.encoders.zipformer1.options import Zipformer1Options
from asr_core.utils.errors import UserError
from asr_core.utils.lazy import import_object

if TYPE_CHECKING:  # programs list the options of encoders without loading torch
    from asr_core.encoders.chunked import ChunkedEncoder
    from asr_core.encoders.protocol import FrontEnd

Builder = Callable[..., "Tuple[FrontEnd, ChunkedEncoder]"]


class EncoderChoice(Protocol):
    """Options of a model that name its encoder."""

    @property
    def encoder(self) -> str:
        """The kind of encoder, a key of :data:`ENCODERS`."""


@dataclass(frozen=True)
class EncoderSpec:
    """A kind of encoder.

    Attributes:
      options: the encoder's own options, a frozen dataclass named ``...Options`` that derives from
        :class:`~asr_core.encoders.chunk_options.ChunkOptions` and whose fields were made by
        :func:`asr_core.utils.options.option`. A field of the same name as an option of all models
        replaces it.
      builder: a function (options, features per frame) -> (front end, encoder), see
        :mod:`asr_core.encoders.protocol`; or its place, ``"package.module:name"``, which is
        imported when a model is built. Its options are the encoder's own and those of all models.
        It raises a UserError for options that contradict each other; a ValueError of the modules is
        reported as one.
      subsampling_factor: feature frames per frame of encoder output, or a function that computes it
        from the options.
    """

    options: type
    builder: Union[str, Builder]
    subsampling_factor: Union[int, Callable[..., int]] = 4


ENCODERS: Dict[str, EncoderSpec] = {
    "zipformer": EncoderSpec(ZipformerOptions, "asr_core.encoders.zipformer.build:build"),
    "conformer": EncoderSpec(
        conformer.ConformerOptions, "asr_core.encoders.conformer.build:build", conformer.subsampling_factor
    ),
    "contextnet": EncoderSpec(
        contextnet.ContextNetOptions,
        "asr_core.encoders.contextnet.build:build",
        contextnet.subsampling_factor,
    ),
    "lstm": EncoderSpec(LstmOptions, "asr_core.encoders.lstm.build:build"),
    "zipformer1": EncoderSpec(Zipformer1Options, "asr_core.encoders.zipformer1.build:build"),
}


def encoder_spec(name: str) -> EncoderSpec:
    """Return the kind of encoder of this name.

    Raises:
      UserError: there is no such encoder.
    """
    if name not in ENCODERS:
        raise UserError(f"unknown --encoder {name!r}; known: {', '.join(ENCODERS)}")
    return ENCODERS[name]


def subsampling_factor(opts: EncoderChoice) -> int:
    """Return the feature frames per frame of encoder output, of a model with these options."""
    factor = encoder_spec(opts.encoder).subsampling_factor
    return factor(opts) if callable(factor) else factor


def build_encoder(opts: EncoderChoice, feature_dim: int) -> "Tuple[FrontEnd, ChunkedEncoder]":
    """Build the front end and the encoder that the options of a model describe.

    Args:
      opts: all options of the model.
      feature_dim: features per frame.

    Raises:
      UserError: options that contradict each other, or chunks that do not fit the encoder.
    """
    builder = encoder_spec(opts.encoder).builder
    if isinstance(builder, str):
        builder = cast(Builder, import_object(builder))
    try:
        encoder_embed, encoder = builder(opts, feature_dim)
    except ValueError as e:
        raise UserError(f"the options of the encoder do not fit together: {e}") from e
    encoder.check_chunks()
    return encoder_embed, encoder
