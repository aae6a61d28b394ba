"""The kinds of encoder that ``--encoder`` chooses among. A new one is an entry here, its options and its modules."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict

from asr_core.encoders.conformer import options as conformer
from asr_core.encoders.contextnet import options as contextnet
from asr_core.encoders.lstm import options as lstm
from asr_core.encoders.zipformer import options as zipformer
from asr_core.encoders.zipformer1 import options as zipformer1
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from typing import Tuple, Union

    from torch import nn


@dataclass(frozen=True)
class EncoderSpec:
    """How to make one kind of encoder.

    Attributes:
      options: a dataclass, named ``...Options``, whose fields were made by :func:`asr_core.utils.options.option`: the options that this
        encoder has besides those of every model. A field of the same name as a common one replaces it.
      build: (these options and the common ones of every model, features per frame) -> the front end and the encoder, see
        :mod:`asr_core.encoders.protocol`; raises a UserError for options that contradict each other. Importing it must not import
        torch.
      subsampling_factor: feature frames per frame of encoder output, or a function of the options that tells.
    """

    options: type
    build: "Callable[[Any, int], Tuple[nn.Module, nn.Module]]"
    subsampling_factor: "Union[int, Callable[[Any], int]]" = 4


ENCODERS: Dict[str, EncoderSpec] = {
    "zipformer": EncoderSpec(zipformer.ZipformerOptions, zipformer.build),
    "conformer": EncoderSpec(conformer.ConformerOptions, conformer.build, conformer.subsampling_factor),
    "contextnet": EncoderSpec(contextnet.ContextNetOptions, contextnet.build, contextnet.subsampling_factor),
    "lstm": EncoderSpec(lstm.LstmOptions, lstm.build),
    "zipformer1": EncoderSpec(zipformer1.Zipformer1Options, zipformer1.build),
}


def encoder_spec(name: str) -> EncoderSpec:
    """How to make the encoder of this name.

    Raises:
      UserError: there is none.
    """
    if name not in ENCODERS:
        raise UserError(f"unknown --encoder {name!r}; known: {', '.join(ENCODERS)}")
    return ENCODERS[name]


def subsampling_factor(opts: Any) -> int:
    """Feature frames per frame of encoder output, of a model with these options."""
    factor = encoder_spec(opts.encoder).subsampling_factor
    return factor(opts) if callable(factor) else factor
