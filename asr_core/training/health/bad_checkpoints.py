"""Checkpoints from the time of a failure, which a run must not continue from.

Weights can be useless long before they are not finite. A run that fails renames what it saved in
that time, so that the same command, with better options, goes on from good weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import List, Sequence

from asr_core.models.averaging import numbered
from asr_core.training.resume import peek
from asr_core.utils.errors import UserError
from asr_core.utils.lock import check_folder


@dataclass(frozen=True)
class Failure:
    """When a run failed.

    Attributes:
      first: the first step whose weights are not to be trusted.
      last: the step at which it ended.
      earlier: the last step before, and the last step of, each failure that it recovered from.
    """

    first: int
    last: int
    earlier: Sequence[Sequence[int]] = ()

    def spoils(self, batch: int) -> bool:
        """Return whether the weights after step ``batch`` are from a failure."""
        return self.first <= batch <= self.last or any(good < batch < end for good, end in self.earlier)


def set_aside(exp_dir: Path, failure: Failure) -> List[str]:
    """Rename the checkpoints of a failure to ``bad-<name>``; return their former names.

    Raises:
      UserError: this process has lost the lock of the folder.
    """
    check_folder(exp_dir)
    renamed = []
    for _, path in [*numbered(exp_dir, "checkpoint"), *numbered(exp_dir, "epoch")]:
        try:
            batch = int(peek(path).get("batch_idx_train", 0))
        except (UserError, TypeError, ValueError):  # a damaged one is passed over anyway
            continue
        if failure.spoils(batch):
            path.replace(path.with_name(f"bad-{path.name}"))
            renamed.append(path.name)
    return renamed
