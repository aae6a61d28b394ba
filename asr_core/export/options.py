"""Options of the programs that export models; light, so that ``--help`` needs no torch."""

from dataclasses import dataclass

from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass(frozen=True)
class TokensOptions:
    """Tokens."""

    tokens: str = option(
        "",
        "tokens.txt or bpe.model of the model; left out: what training put into --exp-dir",
        aliases=("--bpe-model",),
        path=PathKind.EITHER,
    )


@dataclass(frozen=True)
class ExportOptions(TokensOptions):
    """Export: which kind of file."""

    jit: bool = option(
        False,
        "write TorchScript instead of pretrained.pt: for streaming if the model is causal and "
        "--chunk-size positive",
    )


@dataclass(frozen=True)
class ExportLmOptions:
    """Export: whose weights, and in which form. Sizes are those of the weights."""

    lm_type: str = option("rnn", "kind of model", choices=("rnn", "transformer"))
    exp_dir: str = option(
        "rnn_lm/exp", "folder of the checkpoints; the file goes there, too", path=PathKind.PLACE
    )
    epoch: int = option(30, "use epoch-<epoch>.pt", at_least=0)
    avg: int = option(1, "average the weights of this many epochs, up to --epoch", at_least=1)
    jit: bool = option(False, "TorchScript, which scores sentences and tokens without this library")
