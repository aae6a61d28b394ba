"""Batches that cannot be trained on: their cuts are named in the log, written to bad-cuts.jsonl, and counted."""

import contextlib
import json
import logging
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Sequence

import torch

from asr_core.training.distributed.world import PeerLost, SingleProcess
from asr_core.training.reporting.writers import JsonLines
from asr_core.training.state import TrainState
from asr_core.training.task import Batch, TaskData
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic

_SHOWN = 10  # cuts named in a line of the log; the file has all


def named(cuts: Sequence[Dict[str, Any]]) -> str:
    """The ids of the first few cuts, for a message."""
    return ", ".join(str(cut["id"]) for cut in cuts[:_SHOWN]) + (", ..." if len(cuts) > _SHOWN else "")


def is_out_of_memory(e: BaseException) -> bool:
    """Whether ``e`` says that memory, the GPU's or the machine's, did not suffice."""
    words = ("out of memory", "can't allocate memory", "unable to allocate")
    return isinstance(e, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(e, RuntimeError) and any(word in str(e).lower() for word in words)
    )


class BadBatches:
    """Takes note of batches that are left out.

    Args:
      exp_dir: where bad-cuts.jsonl is.
      world: the processes that train together; all of them note a bad batch at the same step.
      state: where the run stands; has the counters.
      data: describes batches.
    """

    def __init__(self, exp_dir: Path, world: SingleProcess, state: TrainState, data: TaskData) -> None:
        self.data = data
        self.exp_dir = exp_dir
        self.world = world
        self.state = state
        self._file = JsonLines(exp_dir / "bad-cuts.jsonl", state.bad_cuts_lines) if world.is_main else None

    def skipped(self, what: str, suspects: Sequence[Dict[str, Any]]) -> str:
        """Note that this step is left out.

        Args:
          what: ``"loss"`` or ``"gradient"``, which is not finite.
          suspects: this rank's cuts that may be to blame, see :meth:`TaskData.describe`; each with its ``value``.

        Returns:
          the names of the cuts of all ranks.
        """
        state = self.state
        state.bad_in_a_row += 1
        state.bad_batches += 1
        cuts = [cut for of_rank in self.world.gather(list(suspects)) for cut in of_rank]
        shown = named(cuts)
        level = logging.WARNING if self.world.is_main else logging.INFO
        logging.log(
            level,
            "batch %d is skipped, its %s is not finite (%d so far); cuts: %s",
            state.batch_idx_train,
            what,
            state.bad_batches,
            shown,
        )
        if self._file is not None:
            where = {"epoch": state.epoch, "batch": state.batch_idx_train, "what": what}
            self._file.append_all([{**cut, **where, "value": str(cut["value"])} for cut in cuts])
            state.bad_cuts_lines = self._file.lines
        return shown

    @contextlib.contextmanager
    def watch(self, batches: Sequence[Optional[Batch]], advice: str) -> Iterator[None]:
        """Within the block, an exception leaves a description of ``batches`` in bad-batch-<rank>.json and names their cuts.

        Args:
          batches: this rank's batches of a step.
          advice: what to do where memory does not suffice.

        Raises:
          UserError: memory did not suffice.
        """
        try:
            yield
        except (UserError, PeerLost):
            raise
        except Exception as e:
            cuts = [cut for batch in batches if batch is not None for cut in self.data.describe(batch)]
            shapes = [self.data.shape_of(batch) for batch in batches if batch is not None]
            path = self.exp_dir / f"bad-batch-{self.world.rank}.json"
            what = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
            where = {
                "epoch": self.state.epoch,
                "batch": self.state.batch_idx_train,
                "error": what,
                "shapes": shapes,
            }
            with contextlib.suppress(UserError):  # the first trouble is the one to be told
                write_text_atomic(
                    path, json.dumps({**where, "cuts": cuts}, indent=1, ensure_ascii=False) + "\n"
                )
            if is_out_of_memory(e):
                raise UserError(
                    f"out of memory at batch {self.state.batch_idx_train}, inputs of shape {shapes}, cuts {named(cuts)} (all in {path}): "
                    f"{advice}"
                ) from e
            logging.error(
                "batch %d failed (%s); its cuts are in %s: %s",
                self.state.batch_idx_train,
                what,
                path,
                named(cuts),
            )
            raise
