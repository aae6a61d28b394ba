"""Training of a neural language model on token data; the same command again continues where a run was interrupted."""

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from asr_core.bin.train import launch
from asr_core.cli.program import run_program
from asr_core.lm.options import LmTrainOptions, RnnOptions, TransformerOptions
from asr_core.training.options import TrainOptions
from asr_core.utils.options import AttributeDict, Parser, add_options, params_of

if TYPE_CHECKING:
    from asr_core.training.distributed.world import SingleProcess

SIZES = {"rnn": RnnOptions, "transformer": TransformerOptions}
# what the loop needs; the rest of these options is about acoustic models
LOOP_OPTIONS = (
    "world_size", "master_port", "dist_timeout", "device", "num_threads", "tensorboard", "num_epochs", "max_steps", "start_epoch",
    "start_batch", "exp_dir", "seed", "log_interval", "reset_interval", "valid_interval", "save_every_n", "keep_last_k",
    "average_period", "accum_grad", "max_bad_batches", "divergence_factor", "auto_recover", "recover_lr_factor", "max_recoveries",
    "print_diagnostics", "inf_check", "use_fp16", "use_bf16",
)  # fmt: skip
DEFAULTS = {"save_every_n": 2000}
DEFAULTS_OF = {
    "rnn": {"exp_dir": "rnn_lm/exp"},
    "transformer": {"exp_dir": "transformer_lm/exp", "warmup_batches": 2000.0},
}


def main(
    lm_type: str = "", defaults: Optional[Dict[str, Any]] = None, argv: Optional[List[str]] = None
) -> None:
    """Train; ends the process like :func:`asr_core.bin.train.main`.

    Args:
      lm_type: ``"rnn"`` or ``"transformer"``; by default what ``--lm-type`` says.
      defaults: defaults of this recipe's options, by name.
      argv: the command line; by default the process' own.
    """
    run_program(lambda: sys.exit(launch(_train, (), _parse(lm_type, defaults or {}, argv))))


def _parse(lm_type: str, defaults: Dict[str, Any], argv: Optional[List[str]]) -> AttributeDict:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--lm-type", default=lm_type or "rnn")
    lm_type = first.parse_known_args(argv)[0].lm_type
    parser = Parser(
        "Train a neural language model. The same command again continues where a run was interrupted."
    )
    parser.add_argument(
        "--lm-type",
        choices=sorted(SIZES),
        default=lm_type,
        help="kind of model; sets which sizes can be given",
    )
    merged = {**DEFAULTS, **DEFAULTS_OF.get(lm_type, {}), **defaults}
    add_options(parser, LmTrainOptions, merged)
    add_options(parser, SIZES.get(lm_type, RnnOptions), merged)
    add_options(parser, TrainOptions, merged, only=LOOP_OPTIONS)
    return params_of(parser.parse_args(argv))


def _train(world: "SingleProcess", params: AttributeDict) -> int:
    from asr_core.training.lm_recipe import LmRecipe, LmTrainer
    from asr_core.utils.files import write_text_atomic

    LmRecipe.complete(params)
    if world.is_main:
        write_text_atomic(Path(params["exp_dir"]) / "params.json", str(params) + "\n")
        logging.info("Options: %s", {name: params[name] for name in sorted(params)})
    return LmTrainer(params, LmRecipe(params, world.rank, world.size), world).run()


if __name__ == "__main__":
    main()
