"""Finetuning: training that starts from the weights of another run, on other data."""

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, MutableMapping, Optional

from asr_core.training.recipe import Recipe
from asr_core.utils.errors import UserError
from asr_core.utils.options import add_options, defaults_of, from_params, option, record_of

if TYPE_CHECKING:
    from torch import nn

    from asr_core.data.corpus import Corpus

# What differs from training from scratch; the learning rate stays near its initial value.
DEFAULTS = {"base_lr": 0.0045, "lr_batches": 100000.0, "lr_epochs": 100.0, "warmup_start": 0.5}


@dataclasses.dataclass
class FinetuneOptions:
    """Finetuning: from whose weights, on what."""

    do_finetune: bool = option(
        True, "start from --finetune-ckpt; 0: continue a finetuning at --start-epoch or --start-batch"
    )
    finetune_ckpt: Optional[str] = option(
        None,
        "whose weights to start from: epoch-N.pt, what generate_averaged_model.py wrote, or a pretrained.pt",
    )
    init_modules: Optional[str] = option(
        None,
        "take over these modules alone, by prefixes of their parameters' names, e.g. encoder_embed,encoder; left out: all",
    )
    train_cuts: str = option(
        "",
        "cuts to finetune on: manifests, separated by commas, in --manifest-dir or elsewhere; empty: the corpus'",
    )
    valid_cuts: str = option(
        "",
        "validate on these besides the corpus' own validation cuts: NAME=MANIFEST, separated by commas; losses are recorded by name",
    )
    batch_count_offset: float = option(
        100000.0,
        "added to the counter behind dropout and other schedules, which keeps them at their final values",
    )

    @property
    def modules(self) -> List[str]:
        """``init_modules`` as a list."""
        return [name.strip() for name in (self.init_modules or "").split(",") if name.strip()]


class FinetuneRecipe(Recipe):
    """Trains on from a checkpoint, whose configuration it takes over; arguments as of :class:`Recipe`."""

    purpose = "Finetune a model"

    def __init__(
        self, params: Mapping[str, Any], corpus: "Corpus", rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(params, corpus, rank, world_size)
        self.finetune = from_params(FinetuneOptions, params)
        self.batch_count_offset = self.finetune.batch_count_offset

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of finetuning."""
        add_options(parser, FinetuneOptions)

    @classmethod
    def complete(cls, params: MutableMapping[str, Any]) -> None:
        """Check the options that say where to start, and take the model's configuration from there.

        Raises:
          UserError: options contradict each other or the checkpoint.
        """
        from asr_core.data.options import DataOptions
        from asr_core.models.checkpoint import load_checkpoint_file, model_options

        opts = from_params(FinetuneOptions, params)
        source = _start(opts, params)
        checkpoint = load_checkpoint_file(source)
        try:
            model = model_options(checkpoint, params, free=bool(opts.modules))
        except UserError as e:
            raise UserError(f"{source}: {e}") from e
        params.update(record_of(model))
        usual = defaults_of(DataOptions)
        recorded = {
            "num_mel_bins": "feature_dim",
            "sample_rate": "sample_rate",
            "feature_type": "feature_type",
        }
        for name, trained in ((name, checkpoint.get(key)) for name, key in recorded.items()):
            value = params.setdefault(name, trained or usual[name])
            if trained and value != trained and not opts.modules:
                raise UserError(f"--{name.replace('_', '-')} {value}: {source} was trained with {trained}")

    def build_model(self) -> "nn.Module":
        """The model, on the CPU, with the weights that finetuning starts from."""
        from asr_core.models.checkpoint import load_checkpoint_file, load_state, weights_of

        model = super().build_model()
        if not self.finetune.do_finetune:
            return model  # the loop restores the run that goes on
        path = self.finetune.finetune_ckpt
        try:
            state = weights_of(load_checkpoint_file(str(path)))
            if not self.finetune.modules:
                self._check_vocabulary(state)
            load_state(model, state, self.finetune.modules)
        except UserError as e:
            raise UserError(f"--finetune-ckpt {path}: {e}") from e
        return model

    def _check_vocabulary(self, state: Mapping[str, Any]) -> None:
        for name in ("decoder.embedding.weight", "ctc_output.1.weight"):
            if name in state and len(state[name]) != self.tokenizer.vocab_size:
                raise UserError(
                    f"it has {len(state[name])} tokens, {self.options.bpe_model} {self.tokenizer.vocab_size}: give the model's tokenizer "
                    "with --bpe-model, or take over the encoder alone with --init-modules encoder_embed,encoder"
                )

    def train_cuts(self) -> Any:
        """The cuts to finetune on."""
        names = [name.strip() for name in self.finetune.train_cuts.split(",") if name.strip()]
        if not names:
            return super().train_cuts()
        first, *rest = [self.corpus.manifest(name) for name in names]
        for more in rest:
            first = first + more
        return first

    def valid_sets(self) -> Dict[str, Any]:
        """The corpus' validation cuts, and those of ``--valid-cuts``, by name."""
        own, more = (
            super().valid_sets(),
            self.corpus.named_manifests(self.finetune.valid_cuts, "--valid-cuts"),
        )
        return {**{name or self.corpus.name: cuts for name, cuts in own.items()}, **more} if more else own


def _start(opts: FinetuneOptions, params: Mapping[str, Any]) -> Path:
    """The checkpoint that tells the model's configuration.

    Raises:
      UserError: it is not said, or said twice.
    """
    epoch, batch = params["start_epoch"], params["start_batch"]
    if opts.do_finetune:
        if epoch != 1 or batch > 0:
            raise UserError(
                "a finetuning starts at epoch 1: leave out --start-epoch and --start-batch (the same command again continues where "
                "a run was interrupted), or give --do-finetune 0 to continue at a certain place"
            )
        if not opts.finetune_ckpt:
            raise UserError("nothing to start from: give the weights' file with --finetune-ckpt")
        return Path(opts.finetune_ckpt)
    if epoch <= 1 and batch <= 0:
        raise UserError(
            "--do-finetune 0 continues a finetuning: say where with --start-epoch, above 1, or --start-batch"
        )
    return Path(params["exp_dir"]) / (f"checkpoint-{batch}.pt" if batch > 0 else f"epoch-{epoch - 1}.pt")
