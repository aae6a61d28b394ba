"""Progress of training on a terminal: a bar, the rate, the time left.

Sizes are seconds of audio, or whatever else the task measures its batches in.
"""

import sys
import time
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from tqdm import tqdm

_DECAY = 0.98  # per step, of the sums behind the rate, which so covers about the last 50 steps


class Progress:
    """Measures the rate of training, without validations, and shows a bar on a terminal.

    Args:
      epoch_size: size of an epoch; 0 if unknown.
      num_epochs: last epoch.
      max_steps: last step, or 0 for no such limit.
      bar: whether to show a bar on a terminal.
      unit: the unit of sizes, for the bar.

    Attributes:
      rate: size per second of training.
    """

    def __init__(
        self, epoch_size: float, num_epochs: int, max_steps: int = 0, bar: bool = True, unit: str = "s"
    ) -> None:
        self.epoch_size = epoch_size
        self.num_epochs = num_epochs
        self.max_steps = max_steps
        self.rate = 0.0
        self._unit = unit
        self._wants_bar = bar
        self._bar: Optional["tqdm[Any]"] = None
        # Decaying sums over the steps, and when the present one began; None while paused.
        self._size = 0.0
        self._seconds = 0.0
        self._steps = 0.0
        self._since: Optional[float] = None

    def start_epoch(self, epoch: int, size_done: float) -> None:
        """Begin or continue an epoch of which ``size_done`` was used."""
        self.close()
        self.resume()
        if self._wants_bar and sys.stderr.isatty():
            from tqdm import tqdm

            unit = self._unit
            self._bar = tqdm(
                desc=f"epoch {epoch}",
                total=max(self.epoch_size, size_done) or None,
                initial=size_done,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} "
                + f"{unit}, "
                + "{elapsed}<{remaining}{postfix}",
                dynamic_ncols=True,
                leave=False,
            )

    def update(self, size: float, loss: float, time_left: str) -> None:
        """Count a step.

        Args:
          size: size of its batches.
          loss: its loss per frame, for the bar.
          time_left: time left of the run, for the bar.
        """
        now = time.monotonic()
        if self._since is not None:
            self._seconds = _DECAY * self._seconds + now - self._since
            self._size = _DECAY * self._size + size
            self._steps = _DECAY * self._steps + 1
            if self._seconds > 0:
                self.rate = self._size / self._seconds
        self._since = now
        if self._bar is not None:
            postfix = f"loss {loss:.4g}, {self.rate:.1f} {self._unit}/s, run {time_left}"
            self._bar.set_postfix_str(postfix, refresh=False)
            self._bar.update(size)

    def pause(self) -> None:
        """Stop counting the time, because of a validation or a checkpoint."""
        self._since = None

    def resume(self) -> None:
        """Count the time again."""
        self._since = time.monotonic()

    def time_left(self, epoch: int, size_done: float, batch_idx_train: int) -> str:
        """Estimate the time left of the whole run.

        Args:
          epoch: the epoch under way.
          size_done: amount of it used so far.
          batch_idx_train: steps since the start of training.

        Returns:
          The time as h:mm:ss, or ``?`` while it is unknown.
        """
        left = []
        if self.rate > 0 and self.epoch_size > 0:
            size = (self.num_epochs - epoch) * self.epoch_size + max(0.0, self.epoch_size - size_done)
            left.append(size / self.rate)
        if self.max_steps and self._steps:
            left.append(max(0, self.max_steps - batch_idx_train) * self._seconds / self._steps)
        if not left:
            return "?"
        seconds = int(min(left))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def epoch_share(self, size_done: float) -> float:
        """Return how much of the epoch is done, from 0 to 1; 0 if its size is unknown."""
        return min(size_done / self.epoch_size, 1.0) if self.epoch_size > 0 else 0.0

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
