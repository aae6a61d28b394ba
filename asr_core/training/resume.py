"""Finding the checkpoint that a run continues from.

It is the one that got furthest, by the counters inside of it: names can be those of links or copies
(``epoch-999.pt`` by habit is ``pretrained.pt``). Files that hold no training state, are damaged, or
hold weights that are not finite are passed over, and one line says why. A file that may be whole
but cannot be read ends the run instead, since going back behind it would overwrite it.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch

from asr_core.models.averaging import first_not_finite, numbered
from asr_core.models.checkpoint import UnreadableCheckpoint, load_checkpoint_file
from asr_core.training.checkpoint import read_whole
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.options import LoopOptions
from asr_core.utils.errors import UserError

Found = Optional[Tuple[Path, Dict[str, Any]]]  # the file and its content


@dataclass(frozen=True, order=True)
class Position:
    """A place in the course of a run; later ones are larger.

    Attributes:
      epoch: the epoch under way, from 1.
      batches_done: batches of it that were used.
      step: steps since the start of training.
    """

    epoch: int
    batches_done: int
    step: int


def find_common_start(world: SingleProcess, opts: LoopOptions) -> Found:
    """Return on all ranks what :func:`find_start` returns on rank 0."""
    found = None
    if world.is_main:
        found = find_start(Path(opts.exp_dir), opts.start_epoch, opts.start_batch, opts.num_epochs)
    path = world.from_main(found[0] if found else None)
    return None if path is None else found or (path, read_whole(path))


def find_start(exp_dir: Path, start_epoch: int = 1, start_batch: int = 0, last_epoch: int = 0) -> Found:
    """Find the checkpoint to continue from.

    Args:
      exp_dir: folder of the run.
      start_epoch: if above 1, the checkpoint is that of the epoch before.
      start_batch: if above 0, the checkpoint is that of this step. Without either it is the one
        that got furthest.
      last_epoch: the last epoch that the run will train.

    Returns:
      Path and content of the checkpoint, or None for a new run.

    Raises:
      UserError: the requested checkpoint is missing or unfit, or all checkpoints are; one may not
        be read; or the run would overwrite weights that are not its own.
    """
    if start_batch > 0 or start_epoch > 1:
        if start_batch > 0:
            path, flag = exp_dir / f"checkpoint-{start_batch}.pt", f"--start-batch {start_batch}"
        else:
            path, flag = exp_dir / f"epoch-{start_epoch - 1}.pt", f"--start-epoch {start_epoch}"
        if not path.is_file():
            raise UserError(f"no {path}, which {flag} asks for")
        return path, _read_fit(path)
    search = _Search(exp_dir)
    found = search.furthest()
    if search.passed_over:
        logging.warning("passed over: %s", "; ".join(search.passed_over))
    if found is None and search.unfit:
        raise UserError(
            f"every checkpoint in {exp_dir} is damaged or cannot be used ({'; '.join(search.unfit)}); "
            "to start from scratch, remove them or choose another --exp-dir"
        )
    next_epoch = position_of(found[1], found[0]).epoch if found else 1
    for number, path in sorted(search.bare):
        if next_epoch <= number <= last_epoch:
            raise UserError(
                f"{path} holds weights without a training state, so they cannot be continued from, and this "
                f"run would overwrite them after epoch {number}: move the file, or choose another --exp-dir"
            )
    return found


def furthest_checkpoint(exp_dir: Path) -> Optional[Path]:
    """Return the checkpoint that a run would continue from, or None."""
    found = _Search(exp_dir).furthest()
    return found[0] if found else None


class _Search:
    """The search for the checkpoint that got furthest.

    Args:
      exp_dir: folder of the run.

    Attributes:
      unfit: what is wrong with files that hold a training state, or may have held one.
      bare: files of epochs that hold weights alone, with the epoch in their name.
      passed_over: why files were passed over.
    """

    def __init__(self, exp_dir: Path) -> None:
        self.exp_dir = exp_dir
        self.unfit: List[str] = []
        self.bare: List[Tuple[int, Path]] = []
        self.passed_over: List[str] = []

    def furthest(self) -> Found:
        """Return the whole, finite checkpoint that got furthest, or None."""
        for _, _, path in sorted(self._candidates(), key=lambda c: (c[0], -c[1]), reverse=True):
            try:
                return path, _read_fit(path)
            except UnreadableCheckpoint:
                raise
            except UserError as e:
                self._is_unfit(e)
        return None

    def _candidates(self) -> List[Tuple[Position, int, Path]]:
        """Return position, number and path of all files with a training state."""
        found = []
        for kind in ("epoch", "checkpoint"):
            for number, path in numbered(self.exp_dir, kind):
                try:
                    content = peek(path)
                    if not has_training_state(content):
                        self._is_bare(kind, number, path)
                        continue
                    position = position_of(content, path)
                except UnreadableCheckpoint:
                    raise
                except UserError as e:
                    self._is_unfit(e)
                    continue
                reached = position.epoch - 1 if kind == "epoch" else position.step
                if number > reached:
                    self.passed_over.append(f"the name of {path}, which is at {kind} {reached}")
                found.append((position, number, path))
        return found

    def _is_bare(self, kind: str, number: int, path: Path) -> None:
        self.passed_over.append(f"{path} holds no training state")
        if kind == "epoch":
            self.bare.append((number, path))

    def _is_unfit(self, e: UserError) -> None:
        self.passed_over.append(str(e))
        self.unfit.append(str(e))


def has_training_state(content: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint is one of a run, not weights alone."""
    return bool(content.get("optimizer")) and "batch_idx_train" in content


def position_of(content: Mapping[str, Any], path: Path) -> Position:
    """Return how far the run of a checkpoint had come, which may be one of icefall.

    Args:
      content: the checkpoint.
      path: its file; icefall does not record in it which batches of an epoch were used.

    Raises:
      UserError: its counters make no sense.
    """
    try:
        state = content.get("train_state")
        if state is not None:
            return Position(*(int(state[name]) for name in ("epoch", "batches_done", "batch_idx_train")))
        ended = not path.name.startswith("checkpoint-")
        return Position(int(content.get("cur_epoch", 0)) + ended, 0, int(content.get("batch_idx_train", 0)))
    except (TypeError, ValueError, KeyError) as e:
        raise UserError(f"{path} is damaged: its counters make no sense") from e


def peek(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint but its tensors, which stay on the disk where its format allows that."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if isinstance(content, dict):
            return content
    except Exception:  # an older format, objects of another program, or damage: read it all
        pass
    return load_checkpoint_file(path)


def _read_fit(path: Path) -> Dict[str, Any]:
    """Read a checkpoint that a run can continue from.

    Raises:
      UserError: it is damaged, holds weights alone, or weights that are not finite.
    """
    content = read_whole(path)
    if not has_training_state(content):
        raise UserError(
            f"{path} holds no training state: start from its weights by finetune.py --finetune-ckpt"
        )
    for part in ("model", "model_avg", "model_ema"):
        name = first_not_finite(content.get(part) or {})
        if name:
            raise UserError(f"{path} cannot be continued from, since its {part} is not finite ({name})")
    return content
