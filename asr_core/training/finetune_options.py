"""Options of fine-tuning; light, so that ``--help`` needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional

from asr_core.utils.errors import UserError
from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import OnlyWith
from asr_core.utils.options import option

# The weights are good already: the rate starts low, near the end of the usual schedule, and hardly
# falls, as the schedule's own decay is put off to the far end of any fine-tuning. There is
# no plateau.
DEFAULTS = {
    "base_lr": 0.0045,
    "lr_batches": 100000.0,
    "lr_epochs": 100.0,
    "warmup_start": 0.5,
    "plateau_batches": 0,
}
# Options of the features that a checkpoint knows, and under which of its keys.
FEATURE_OPTIONS = {
    "num_mel_bins": "feature_dim",
    "sample_rate": "sample_rate",
    "feature_type": "feature_type",
}


@dataclass
class FinetuneOptions:
    """Fine-tuning: starting weights and data."""

    do_finetune: bool = option(
        True, "start from --finetune-ckpt; 0: continue a fine-tuning at --start-epoch or --start-batch"
    )
    finetune_ckpt: Optional[str] = option(
        None,
        "checkpoint to start from: epoch-N.pt, what generate_averaged_model.py wrote, or a pretrained.pt",
        path=PathKind.FILE,
    )
    use_ema: Optional[bool] = option(
        None,
        "start from the exponential average that the checkpoint holds (--ema-decay), instead of its "
        "weights; left out: if training validated with it",
        only_with=OnlyWith("do_finetune"),
    )
    init_modules: Optional[str] = option(
        None,
        "take over these modules alone, by prefixes of their parameters' names, e.g. "
        "encoder_embed,encoder; left out: all",
    )
    match_tokens: bool = option(
        False,
        "with another tokenizer than the checkpoint's: take over what it learned of the tokens that both "
        "have, and start afresh with the others",
    )
    train_cuts: str = option(
        "",
        "cuts to fine-tune on: manifests, separated by commas, in --manifest-dir or elsewhere; empty: the "
        "corpus'",
    )
    valid_cuts: str = option(
        "",
        "validate on these besides the corpus' own validation cuts: NAME=MANIFEST, separated by commas; "
        "losses are recorded by name",
    )
    batch_count_offset: float = option(
        100000.0,
        "added to the counter behind dropout and other schedules, which keeps them at their final values",
        at_least=0,
    )

    @property
    def modules(self) -> List[str]:
        """``init_modules`` as a list."""
        return [name.strip() for name in (self.init_modules or "").split(",") if name.strip()]


def starting_checkpoint(opts: FinetuneOptions, params: Mapping[str, object]) -> Path:
    """Return the checkpoint that the model's configuration is taken from.

    Args:
      opts: the options of fine-tuning.
      params: all options.

    Raises:
      UserError: the options name none, or two.
    """
    epoch, batch = int(str(params["start_epoch"])), int(str(params["start_batch"]))
    if opts.do_finetune:
        if epoch != 1 or batch > 0:
            raise UserError(
                "a fine-tuning starts at epoch 1: leave out --start-epoch and --start-batch (the same "
                "command again continues where a run was interrupted), or give --do-finetune 0 to continue "
                "at a certain place"
            )
        if not opts.finetune_ckpt:
            raise UserError("nothing to start from: name the checkpoint with --finetune-ckpt")
        return Path(opts.finetune_ckpt)
    if epoch <= 1 and batch <= 0:
        raise UserError(
            "--do-finetune 0 continues a fine-tuning: say where with --start-epoch, above 1, or --start-batch"
        )
    name = f"checkpoint-{batch}.pt" if batch > 0 else f"epoch-{epoch - 1}.pt"
    return Path(str(params["exp_dir"])) / name
