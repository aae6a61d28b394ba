"""Batches that cannot be trained on: their cuts are logged, recorded and counted."""

import contextlib
import json
import logging
from pathlib import Path
from typing import Dict, Iterator, Mapping, Optional, Sequence

import torch

from asr_core.training.distributed.world import PeerLost, SingleProcess
from asr_core.training.reporting.writers import JsonLines
from asr_core.training.state import TrainState
from asr_core.training.task import Batch, TaskData
from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic

_SHOWN = 10  # cuts named in a line of the log; the file has all

CutRecord = Dict[str, object]  # of TaskData.describe


def names_of(cuts: Sequence[Mapping[str, object]]) -> str:
    """Return the ids of the first few cuts, for a message."""
    return ", ".join(str(cut["id"]) for cut in cuts[:_SHOWN]) + (", ..." if len(cuts) > _SHOWN else "")


def is_out_of_memory(e: BaseException) -> bool:
    """Return whether ``e`` means that the memory of the GPU or of the machine did not suffice."""
    if isinstance(e, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    phrases = ("out of memory", "can't allocate memory", "unable to allocate")  # CUDA, torch on CPU, numpy
    return isinstance(e, RuntimeError) and any(phrase in str(e).lower() for phrase in phrases)


class BadBatches:
    """Records the batches that are left out of training.

    Args:
      exp_dir: folder of bad-cuts.jsonl.
      world: the processes that train together; all of them record a bad batch at the same step.
      state: the counters of the run.
      data: describes batches.
    """

    def __init__(self, exp_dir: Path, world: SingleProcess, state: TrainState, data: TaskData) -> None:
        self.exp_dir = exp_dir
        self.world = world
        self.state = state
        self.data = data
        cuts = exp_dir / "bad-cuts.jsonl"
        self._file = JsonLines(cuts, state.bad_cuts_lines, state.batch_idx_train) if world.is_main else None

    def record_skipped(self, what: str, suspects: Sequence[CutRecord]) -> str:
        """Record that this step is left out.

        Args:
          what: the non-finite value, ``"loss"`` or ``"gradient"``.
          suspects: cuts of this rank that may be the cause, each a record of
            :meth:`TaskData.describe` with its ``value``.

        Returns:
          The names of the cuts of all ranks.
        """
        state = self.state
        state.bad_in_a_row += 1
        state.bad_batches += 1
        cuts = [cut for cuts_of_rank in self.world.gather(list(suspects)) for cut in cuts_of_rank]
        names = names_of(cuts)
        logging.log(
            logging.WARNING if self.world.is_main else logging.INFO,
            "batch %d is skipped, its %s is not finite (%d so far); cuts: %s",
            state.batch_idx_train,
            what,
            state.bad_batches,
            names,
        )
        if self._file is not None:
            where = {"epoch": state.epoch, "batch": state.batch_idx_train, "what": what}
            # The value is text, because JSON has no form for NaN and infinity.
            self._file.append_all([{**cut, **where, "value": str(cut["value"])} for cut in cuts])
            state.bad_cuts_lines = self._file.lines
        return names

    @contextlib.contextmanager
    def reporting_errors(self, batches: Sequence[Optional[Batch]], advice: str) -> Iterator[None]:
        """Return a context that describes the batches of a step if it raises.

        The description is in bad-batch-<rank>.json; a line of the log names the cuts.

        Args:
          batches: batches of this rank, None where it has none.
          advice: what to do if memory does not suffice, for the message.

        Raises:
          UserError: memory did not suffice.
        """
        try:
            yield
        except (UserError, PeerLost):  # neither is the fault of a batch
            raise
        except Exception as e:
            step = self.state.batch_idx_train
            cuts = [cut for batch in batches if batch is not None for cut in self.data.describe(batch)]
            shapes = [self.data.shape_of(batch) for batch in batches if batch is not None]
            error = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
            path = self.exp_dir / f"bad-batch-{self.world.rank}.json"
            content = {
                "epoch": self.state.epoch,
                "batch": step,
                "error": error,
                "shapes": shapes,
                "cuts": cuts,
            }
            with contextlib.suppress(UserError):  # a full disk must not hide the first error
                write_text_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            if is_out_of_memory(e):
                raise UserError(
                    f"out of memory at batch {step}, inputs of shape {shapes}, cuts {names_of(cuts)} "
                    f"(all in {path}): {advice}"
                ) from e
            logging.error("batch %d failed (%s); its cuts are in %s: %s", step, error, path, names_of(cuts))
            raise
