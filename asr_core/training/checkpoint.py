"""Saving the state of a run, and continuing exactly from it."""

import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, Optional

import torch
from torch import nn

from asr_core.models.averaging import first_not_finite, numbered
from asr_core.models.checkpoint import load_checkpoint_file
from asr_core.nn.scaling import load_training_state, training_state
from asr_core.text.pieces import KEY, difference
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.ema import ModelEma
from asr_core.training.optim.scaled_adam import ScaledAdam
from asr_core.training.optim.shards import Shards, gathered, load_weights, local
from asr_core.training.schedule import LRScheduler
from asr_core.training.state import (
    TrainState,
    random_states,
    seed_everything,
    seed_of_epoch,
    set_random_states,
)
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path
from asr_core.utils.lock import check_folder

# Options whose change is not worth a warning: they do not affect the steps still to come.
_FREELY_CHANGED = (
    "exp_dir", "start_epoch", "start_batch", "num_epochs", "max_steps", "num_threads", "num_workers",
    "master_port", "dist_timeout", "tensorboard", "log_interval", "save_every_n", "keep_last_k",
    "auto_recover", "inf_check", "print_diagnostics", "scan_for_oom", "use_ema", "shard",
)  # fmt: skip

# Options without which a checkpoint's optimizer, schedule or features mean something else, with the
# flag of each and the value in checkpoints that do not record it.
_FIXED = (
    ("optim", "--optimizer", "scaled_adam"),
    ("schedule", "--schedule", "eden"),
    ("feature_type", "--feature-type", "fbank"),
)


@dataclass(frozen=True)
class TrainedParts:
    """A model and what trains it: all that a checkpoint holds besides counters and random states.

    Attributes:
      model: the model, on its device.
      optimizer: its optimizer.
      scheduler: the schedule of the learning rate.
      scaler: loss scaling for float16; disabled in other precisions.
      average: the running average of the weights.
      ema: their exponential average, if there is one.
      shards: which part of all that this process keeps.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    average: ModelAverage
    ema: Optional[ModelEma] = None
    shards: Shards = field(default_factory=Shards)


class RunCheckpoint:
    """Saves and restores a run under way.

    Args:
      params: options and derived values; recorded at the top level of the checkpoint.
      parts: model, optimizer and what else changes in training.
      state: the counters of the run.
      world: the processes that train together; all of them save and restore.
      shaping: names of the options that decide on the model's parameters, for messages.

    Attributes:
      former: the values in the restored checkpoint of options that have changed since.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        parts: TrainedParts,
        state: TrainState,
        world: SingleProcess,
        shaping: Collection[str] = (),
    ) -> None:
        self.params = params
        self.parts = parts
        self.state = state
        self.world = world
        self.shaping = shaping
        self.former: Dict[str, Any] = {}

    def not_finite(self) -> str:
        """Return which of the weights and averages is not finite on any rank; empty if none is."""
        parts = self.parts
        kept = {"model": parts.model.state_dict(), "model_avg": parts.average.state_dict()}
        if parts.ema:
            kept["model_ema"] = parts.ema.checkpoint()["model_ema"]
        mine = {part: {n: local(v) for n, v in weights.items()} for part, weights in kept.items()}
        named = ((part, first_not_finite(weights)) for part, weights in mine.items())
        found = next((f"{part}: {name}" for part, name in named if name), "")
        return next((name for name in self.world.gather(found) if name), "")

    def save(self, path: Path, cur_epoch: int) -> None:
        """Write a checkpoint on rank 0, whole or not at all.

        Args:
          path: the file.
          cur_epoch: the epoch that it belongs to.
        """
        parts, state = self.parts, self.state
        own = {"random_states": random_states(), "module_state": training_state(parts.model)}
        main, *others = self.world.gather(own)
        tensors = gathered(
            dict(
                model=parts.model.state_dict(),
                model_avg=parts.average.state_dict(),
                optimizer=parts.shards.state_of(parts.optimizer),
                **(parts.ema.checkpoint() if parts.ema else {}),
            ),
            keep=self.world.is_main,
        )
        if not self.world.is_main:
            return
        counters = state.as_dict()
        content = dict(self.params)
        content.update({name: value for name, value in counters.items() if name.startswith("best_")})
        content.update(
            scheduler=parts.scheduler.state_dict(),
            grad_scaler=parts.scaler.state_dict() if parts.scaler.is_enabled() else None,
            sampler={"epoch": state.epoch, "batches_done": state.batches_done},
            batch_idx_train=state.batch_idx_train,
            cur_epoch=cur_epoch,
            train_loss=state.train_loss,
            train_state=counters,
            **main,
            other_ranks=others,
            **tensors,
        )
        with atomic_path(path) as tmp:
            torch.save(content, tmp)
        logging.info("Saved %s (%.1f MB)", path, path.stat().st_size / 1e6)

    def restore(self, content: Dict[str, Any], path: Path) -> None:
        """Continue from what :meth:`save` wrote, or from a checkpoint of icefall's Zipformer.

        Args:
          content: the checkpoint.
          path: file of the checkpoint, for messages.

        Raises:
          UserError: the checkpoint is of another model, optimizer, schedule or kind of features.
        """
        parts = self.parts
        self._check_fixed_options(content, path)
        changed = self._changed_options(content)
        self.former = {name: content[name] for name in changed}
        try:
            load_weights(parts.model, _without_ddp_prefix(content["model"]))
            parts.average.load_state_dict(_without_ddp_prefix(content.get("model_avg") or content["model"]))
            if content.get("optimizer"):
                parts.shards.load_optimizer(parts.optimizer, content["optimizer"])
        except (RuntimeError, KeyError, ValueError) as e:
            why = [text for name, text in changed.items() if name in self.shaping]
            raise UserError(
                f"{path} does not fit this model ({', '.join(why) or str(e).splitlines()[-1].strip()}): "
                "give the same options, or another --exp-dir"
            ) from e
        was, now = self.former.get("base_lr", 0.0), self.params.get("base_lr", 0.0)
        if isinstance(parts.optimizer, ScaledAdam) and 0 < now < was:  # or the high rate would act for long
            parts.optimizer.scale_momenta(now / was)
        if changed:
            logging.warning("continuing with changed options: %s", ", ".join(changed.values()))
        if parts.ema and not parts.ema.restore(content):
            logging.info("%s has no exponential average of the weights: it starts here", path)
        if content.get("grad_scaler") and parts.scaler.is_enabled():
            parts.scaler.load_state_dict(content["grad_scaler"])
        if "train_state" in content:
            self.state.load(content["train_state"])
            self._restore_rank([content, *content.get("other_ranks", [])])
        else:
            self.state.load(_state_of_icefall(content, path))
        if content.get("scheduler"):
            parts.scheduler.load_state_dict(content["scheduler"])

    def _restore_rank(self, saved: List[Mapping[str, Any]]) -> None:
        """Restore the states that differ from rank to rank.

        With another number of ranks than before, their random sources are reseeded.

        Args:
          saved: what each rank saved, by rank.
        """
        world, state = self.world, self.state
        load_training_state(self.parts.model, saved[min(world.rank, len(saved) - 1)]["module_state"])
        if len(saved) == world.size:
            set_random_states(saved[world.rank]["random_states"])
            return
        seed_everything(seed_of_epoch(self.params["seed"], state.epoch, world.rank, state.batch_idx_train))
        if state.batches_done == 0:
            logging.info("%d processes continue what %d began", world.size, len(saved))
            return
        logging.warning(
            "%d processes continue what %d began: epoch %d goes on after its first %d batches, none repeated "
            "or left out; a step consists of another number of batches from here on, and the random sources "
            "of dropout start afresh",
            world.size,
            len(saved),
            state.epoch,
            state.batches_done,
        )

    def _check_fixed_options(self, content: Mapping[str, Any], path: Path) -> None:
        for name, flag, default in _FIXED:
            was, now = content.get(name, default), self.params.get(name, default)
            if was != now:
                raise UserError(
                    f"{path} is of a run with {flag} {was}, which {flag} {now} cannot continue: "
                    "choose another --exp-dir"
                )
        was, now = content.get(KEY), self.params.get(KEY)
        found = difference(now, was, "the run's") if was and now else ""
        if found:
            raise UserError(
                f"{path} is of a run with another tokenizer, which this one cannot continue: {found}; "
                "give the run's tokenizer, or choose another --exp-dir"
            )

    def _changed_options(self, content: Mapping[str, Any]) -> Dict[str, str]:
        """Return what has changed of the options that matter, in words, by name."""
        return {
            name: f"{name} was {content[name]}, is {value}"
            for name, value in sorted(self.params.items())
            if name in content and name not in _FREELY_CHANGED and str(content[name]) != str(value)
        }


def read_whole(path: Path) -> Dict[str, Any]:
    """Read a checkpoint to continue from.

    Raises:
      UserError: it is damaged or cut off, or holds no model.
    """
    content = load_checkpoint_file(path)
    if "model" not in content:
        raise UserError(f"{path} holds no model")
    return content


def remove_old(exp_dir: Path, keep: int, newest: int) -> None:
    """Remove all but the last ``keep`` of the ``checkpoint-<N>.pt`` with N up to ``newest``.

    Those with a larger N, of a run that went back, remain until it passes them.
    """
    check_folder(exp_dir)
    candidates = [path for number, path in numbered(exp_dir, "checkpoint") if number <= newest]
    for path in candidates[keep:]:
        path.unlink(missing_ok=True)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, which takes no space, or else a copy of it."""
    with atomic_path(target) as tmp:
        tmp.unlink()
        try:
            os.link(source, tmp)
        except OSError:
            shutil.copyfile(source, tmp)


def _without_ddp_prefix(state: Dict[str, Any]) -> Dict[str, Any]:
    if state and all(name.startswith("module.") for name in state):
        return {name[len("module.") :]: value for name, value in state.items()}
    return state


def _state_of_icefall(content: Mapping[str, Any], path: Path) -> Dict[str, Any]:
    """Return the counters for a checkpoint without our own: those at the start of an epoch."""
    epoch = int(content.get("cur_epoch", 0))
    if path.name.startswith("checkpoint-"):
        logging.warning(
            "%s does not record which batches of epoch %d were used: that epoch starts again", path, epoch
        )
        epoch -= 1
    names = ("best_train_loss", "best_valid_loss", "best_train_epoch", "best_valid_epoch")
    known = {name: content[name] for name in names if name in content}
    return {"epoch": epoch + 1, "batch_idx_train": int(content.get("batch_idx_train", 0)), **known}
