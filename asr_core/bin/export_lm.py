"""Export a neural language model: pretrained.pt, or with --jit 1 TorchScript, cpu_jit.pt."""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class ExportLmOptions:
    """Export: whose weights, and in which form. Sizes are those of the weights."""

    lm_type: str = option("rnn", "kind of model", choices=("rnn", "transformer"))
    exp_dir: str = option("rnn_lm/exp", "folder of the checkpoints; the file goes there, too")
    epoch: int = option(30, "use epoch-<epoch>.pt")
    avg: int = option(1, "average the weights of so many epochs, up to --epoch")
    jit: bool = option(False, "TorchScript, which scores sentences and tokens without this library")


def main(lm_type: str = "", argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run; ``lm_type`` is the kind of model of a recipe's folder."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(
        parser, ExportLmOptions, {"lm_type": lm_type, "exp_dir": f"{lm_type}_lm/exp"} if lm_type else {}
    )
    opts = from_params(ExportLmOptions, parser.parse_args(argv))
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: ExportLmOptions) -> None:
    from pathlib import Path

    from asr_core.decoding.scorers.neural_lm_loading import load_lm
    from asr_core.export.language_model import save_lm
    from asr_core.lm.options import LmOptions

    lm = load_lm(
        LmOptions(lm_exp_dir=opts.exp_dir, lm_epoch=opts.epoch, lm_avg=opts.avg), None, lm_type=opts.lm_type
    )
    path = save_lm(lm, Path(opts.exp_dir) / ("cpu_jit.pt" if opts.jit else "pretrained.pt"), opts.jit)
    size = sum(p.numel() for p in lm.parameters())
    logging.info("%s: %s language model, %d tokens, %d parameters", path, opts.lm_type, lm.vocab_size, size)


if __name__ == "__main__":
    main()
