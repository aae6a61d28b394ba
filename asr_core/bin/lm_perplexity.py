"""Print the perplexity of a neural language model on a text, per token and per word."""

from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import parse_and_run
from asr_core.lm.options import LmOptions
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class LmPerplexityOptions:
    """Model and data."""

    lm_type: str = option("rnn", "kind of model", choices=("rnn", "transformer"))
    exp_dir: str = option("rnn_lm/exp", "folder of the checkpoints", path=PathKind.FOLDER)
    epoch: int = option(30, "use epoch-<epoch>.pt", at_least=0)
    avg: int = option(1, "average the weights of this many epochs, up to --epoch", at_least=1)
    lm_data: str = option(
        "data/lm_training_bpe_500/sorted_lm_data-test.pt",
        "the text in tokens, as prepare_lm_data makes it",
        path=PathKind.FILE,
    )
    batch_size: int = option(400, "sentences at once", at_least=1)
    device: str = option(
        "auto", "where to compute; auto takes CUDA if there is any", choices=("auto", "cpu", "cuda")
    )


def main(lm_type: str = "", argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; ``lm_type`` is the kind of model of a recipe's folder."""
    defaults = {"lm_type": lm_type, "exp_dir": f"{lm_type}_lm/exp"} if lm_type else None
    parse_and_run(LmPerplexityOptions, __doc__, argv, _run, defaults=defaults, log=False)


def _run(opts: LmPerplexityOptions) -> None:
    from asr_core.decoding.scorers.lm_perplexity import describe_perplexity

    model = LmOptions(lm_exp_dir=opts.exp_dir, lm_epoch=opts.epoch, lm_avg=opts.avg)
    print(
        describe_perplexity(model, opts.lm_type, opts.lm_data, batch_size=opts.batch_size, device=opts.device)
    )


if __name__ == "__main__":
    main()
