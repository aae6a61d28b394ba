"""Train a neural language model on token data."""

import sys
from typing import Dict, List, Mapping, Optional

from asr_core.cli.program import run_program
from asr_core.lm.options import LmTrainOptions, RnnOptions, TransformerOptions
from asr_core.training.distributed.launch import RankInfo, launch
from asr_core.training.options import LoopOptions, fit_lengths
from asr_core.utils.options import AttributeDict, Parser, add_options, params_of, peek
from asr_core.utils.parsing import options_on

SIZES: Dict[str, type] = {"rnn": RnnOptions, "transformer": TransformerOptions}
DEFAULTS = {"save_every_n": 2000}
DEFAULTS_OF: Dict[str, Dict[str, object]] = {
    "rnn": {"exp_dir": "rnn_lm/exp"},
    "transformer": {"exp_dir": "transformer_lm/exp", "warmup_batches": 2000.0},
}


def main(
    lm_type: str = "rnn",
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[List[str]] = None,
) -> None:
    """Train; end the process like :func:`asr_core.bin.train.main`.

    Args:
      lm_type: ``"rnn"`` or ``"transformer"``, the default of ``--lm-type``.
      defaults: defaults of this recipe's options, by name.
      argv: the command line; by default the process' own.
    """
    run_program(lambda: sys.exit(launch(_train, (), parse(lm_type, defaults, argv))))


def _train(rank: RankInfo, params: AttributeDict) -> int:
    from asr_core.training.start import train_lm

    return train_lm(rank, params)


def parse(
    lm_type: str = "rnn",
    defaults: Optional[Mapping[str, object]] = None,
    argv: Optional[List[str]] = None,
) -> AttributeDict:
    """Read the command line; arguments as of :func:`main`."""
    lm_type = peek(argv, "lm-type", lm_type)
    parser = Parser(
        "Train a neural language model. The same command again continues where a run was interrupted."
    )
    parser.add_argument(
        "--lm-type",
        choices=sorted(SIZES),
        default=lm_type,
        help="kind of model; sets which sizes can be given",
    )
    merged = {**DEFAULTS, **DEFAULTS_OF.get(lm_type, {}), **(defaults or {})}
    for cls in (LmTrainOptions, SIZES.get(lm_type, RnnOptions), LoopOptions):
        add_options(parser, cls, merged)
    params = params_of(parser.parse_args(argv))
    fit_lengths(params, options_on(argv, parser))
    return params


if __name__ == "__main__":
    main()
