"""Saving the state of a run, finding it again, and continuing exactly from it."""

import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from torch import nn

from asr_core.models.averaging import numbered
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.optim.averaging import ModelAverage
from asr_core.training.optim.ema import ModelEma
from asr_core.training.state import (
    TrainState,
    random_states,
    seed_everything,
    seed_of_epoch,
    set_random_states,
)
from asr_core.utils.errors import UserError
from asr_core.utils.files import atomic_path

_FREE = (
    "exp_dir",
    "start_epoch",
    "start_batch",
    "num_epochs",
    "max_steps",
    "num_threads",
)  # no change worth a word


class RunCheckpoint:
    """Everything that a checkpoint holds of a run under way.

    Args:
      params: the options and derived values; recorded at the checkpoint's top level.
      model, optimizer, scheduler, scaler: what is trained and what trains it.
      average: the running average.
      state: where the run stands.
      world: the processes that train together; all of them save and restore.
      ema: the exponential average, if there is one.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        model: nn.Module,
        optimizer: Any,
        scheduler: Any,
        scaler: Any,
        average: ModelAverage,
        state: TrainState,
        world: SingleProcess,
        ema: Optional[ModelEma] = None,
    ) -> None:
        self.params = params
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = scaler
        self.average = average
        self.state = state
        self.world = world
        self.ema = ema

    def save(self, path: Path, cur_epoch: int) -> None:
        """Let rank 0 write a checkpoint, whole or not at all; ``cur_epoch`` is the epoch that it belongs to."""
        state = self.state
        main, *others = self.world.gather(
            {"random_states": random_states(), "module_state": _module_state(self.model)}
        )
        if not self.world.is_main:
            return
        content = dict(self.params)
        content.update({name: value for name, value in state.as_dict().items() if name.startswith("best_")})
        content.update(
            model=self.model.state_dict(),
            model_avg=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scheduler=self.scheduler.state_dict(),
            grad_scaler=self.scaler.state_dict() if self.scaler.is_enabled() else None,
            sampler={"epoch": state.epoch, "batches_done": state.batches_done},
            batch_idx_train=state.batch_idx_train,
            cur_epoch=cur_epoch,
            train_loss=state.train_loss,
            train_state=state.as_dict(),
            **main,
            other_ranks=others,
            **(self.ema.checkpoint() if self.ema else {}),
        )
        with atomic_path(path) as tmp:
            torch.save(content, tmp)
        logging.info("Saved %s (%.1f MB)", path, path.stat().st_size / 1e6)

    def restore(self, content: Dict[str, Any], path: Path) -> None:
        """Continue from what :meth:`save` wrote, or from a checkpoint of icefall's zipformer recipe.

        Raises:
          UserError: the checkpoint is of another model, optimizer, schedule or kind of features.
        """
        self._check_kinds(content, path)
        changed = self._changed_options(content)
        try:
            self.model.load_state_dict(_without_ddp_prefix(content["model"]))
            self.average.load_state_dict(_without_ddp_prefix(content.get("model_avg") or content["model"]))
            if content.get("optimizer"):
                self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, KeyError, ValueError) as e:
            why = str(e).splitlines()[-1].strip()
            raise UserError(
                f"{path} does not fit this model ({changed or why}): give the same options, or another --exp-dir"
            ) from e
        if changed:
            logging.warning("continuing with changed options: %s", changed)
        if self.ema and not self.ema.restore(content):
            logging.info("%s has no exponential average of the weights: it starts here", path)
        if content.get("grad_scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(content["grad_scaler"])
        if "train_state" in content:
            self.state = TrainState.from_dict(content["train_state"])
            self._restore_rank([content, *content.get("other_ranks", [])])
        else:
            self.state = _state_of_icefall(content, path)
        if content.get("scheduler"):
            self.scheduler.load_state_dict(content["scheduler"])

    def _restore_rank(self, saved: List[Dict[str, Any]]) -> None:
        """Put back what each rank has of its own; with another number of ranks their random sources start anew."""
        world, state = self.world, self.state
        _load_module_state(self.model, saved[min(world.rank, len(saved) - 1)]["module_state"])
        if len(saved) == world.size:
            set_random_states(saved[world.rank]["random_states"])
            return
        seed_everything(seed_of_epoch(self.params["seed"], state.epoch, world.rank, state.batch_idx_train))
        if state.batches_done == 0:
            logging.info("%d processes continue what %d began", world.size, len(saved))
            return
        logging.warning(
            "%d processes continue what %d began: epoch %d goes on after its first %d batches, none repeated or left out; a step is made "
            "of another number of batches from here on, and the random sources of dropout start anew",
            world.size, len(saved), state.epoch, state.batches_done,
        )  # fmt: skip

    def _check_kinds(self, content: Dict[str, Any], path: Path) -> None:
        kinds = (
            ("optim", "--optimizer", "scaled_adam"),
            ("schedule", "--schedule", "eden"),
            ("feature_type", "--feature-type", "fbank"),
        )
        for name, flag, usual in kinds:
            was, now = content.get(name, usual), self.params.get(name, usual)
            if was != now:
                raise UserError(
                    f"{path} is of a run with {flag} {was}, which {flag} {now} cannot continue: choose another --exp-dir"
                )

    def _changed_options(self, content: Dict[str, Any]) -> str:
        names = [
            n for n, v in self.params.items() if n in content and n not in _FREE and str(content[n]) != str(v)
        ]
        return ", ".join(f"{n} was {content[n]}, is {self.params[n]}" for n in sorted(names))


def read_whole(path: Path) -> Dict[str, Any]:
    """Read a checkpoint after checking its checksums.

    Raises:
      UserError: it is damaged or cut off.
    """
    from asr_core.models.checkpoint import load_checkpoint_file

    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except Exception as e:  # zipfile raises many kinds, depending on which bytes are wrong
        raise UserError(f"{path} is damaged: {e}") from e
    if bad is not None:
        raise UserError(f"{path} is damaged: wrong checksum of {bad}")
    content = load_checkpoint_file(path)
    if "model" not in content:
        raise UserError(f"{path} holds no model")
    return content


def find_start(
    exp_dir: Path, start_epoch: int = 1, start_batch: int = 0
) -> Optional[Tuple[Path, Dict[str, Any]]]:
    """The checkpoint to continue from, or None for a new run.

    Without ``start_epoch`` (above 1) and ``start_batch`` (above 0) it is the one that got furthest; damaged files are named in
    a warning and passed over.

    Raises:
      UserError: the checkpoint that was asked for is missing or damaged, or there are checkpoints and all are damaged.
    """
    if start_batch > 0 or start_epoch > 1:
        path = exp_dir / (
            f"checkpoint-{start_batch}.pt" if start_batch > 0 else f"epoch-{start_epoch - 1}.pt"
        )
        if not path.is_file():
            flag = f"--start-batch {start_batch}" if start_batch > 0 else f"--start-epoch {start_epoch}"
            raise UserError(f"no {path}, which {flag} asks for")
        return path, read_whole(path)
    epoch = _newest_whole(exp_dir, "epoch")
    furthest = epoch[1].get("batch_idx_train", 0) if epoch else -1
    batch = _newest_whole(exp_dir, "checkpoint", furthest)
    found = batch or epoch
    if found is None and (numbered(exp_dir, "epoch") or numbered(exp_dir, "checkpoint")):
        raise UserError(
            f"every checkpoint in {exp_dir} is damaged; remove them, or choose another --exp-dir, to start anew"
        )
    return found


def find_common_start(
    world: SingleProcess, exp_dir: Path, start_epoch: int = 1, start_batch: int = 0
) -> Optional[Tuple[Path, Dict[str, Any]]]:
    """What :func:`find_start` gives on rank 0, for all ranks."""
    found = find_start(exp_dir, start_epoch, start_batch) if world.is_main else None
    path = world.from_main(found[0] if found else None)
    return None if path is None else found or (path, read_whole(path))


def _newest_whole(exp_dir: Path, kind: str, above: int = -1) -> Optional[Tuple[Path, Dict[str, Any]]]:
    for number, path in numbered(exp_dir, kind):
        if number <= above:
            return None
        try:
            return path, read_whole(path)
        except UserError as e:
            logging.warning("%s; falling back to an earlier checkpoint", e)
    return None


def remove_old(exp_dir: Path, keep: int, newest: int) -> None:
    """Remove all but the last ``keep`` of the ``checkpoint-<N>.pt`` with N up to ``newest``."""
    for _, path in [(n, p) for n, p in numbered(exp_dir, "checkpoint") if n <= newest][keep:]:
        path.unlink(missing_ok=True)


def remove_leftovers(exp_dir: Path) -> None:
    """Remove temporary files of a run that was killed while it wrote."""
    for path in exp_dir.glob(".*.tmp*"):
        path.unlink(missing_ok=True)


def copy_checkpoint(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``: a hard link, which takes no room, or else a copy."""
    with atomic_path(target) as tmp:
        tmp.unlink()
        try:
            os.link(source, tmp)
        except OSError:
            shutil.copyfile(source, tmp)


def _module_state(model: nn.Module) -> Dict[str, Any]:
    from asr_core.nn.scaling import training_state

    return training_state(model)


def _load_module_state(model: nn.Module, state: Dict[str, Any]) -> None:
    from asr_core.nn.scaling import load_training_state

    load_training_state(model, state)


def _without_ddp_prefix(state: Dict[str, Any]) -> Dict[str, Any]:
    if state and all(name.startswith("module.") for name in state):
        return {name[len("module.") :]: value for name, value in state.items()}
    return state


def _state_of_icefall(content: Dict[str, Any], path: Path) -> TrainState:
    """Where a run stands whose checkpoint lacks our own record: at the start of an epoch."""
    epoch = int(content.get("cur_epoch", 0))
    if path.name.startswith("checkpoint-"):
        logging.warning(
            "%s does not say which batches of epoch %d were used: that epoch starts again", path, epoch
        )
        epoch -= 1
    names = ("best_train_loss", "best_valid_loss", "best_train_epoch", "best_valid_epoch")
    known = {name: content[name] for name in names if name in content}
    return TrainState(epoch=epoch + 1, batch_idx_train=int(content.get("batch_idx_train", 0)), **known)
