"""What people see while a model trains: a bar on a terminal, rates, the time left.

What is said here of seconds of audio holds for whatever else an epoch is counted in.
"""

import sys
import time
from typing import Any, Optional

_MEMORY = 0.98  # the rate is that of about the last 50 steps


class Progress:
    """Measures the rate of training (seconds of audio per second, validations left out) and shows a bar on a terminal.

    Args:
      epoch_audio: seconds of audio in an epoch; 0 if unknown.
      num_epochs: last epoch.
      max_steps: last batch, or 0.
      bar: whether a terminal gets a bar.
      unit: what is counted, for the bar.
    """

    def __init__(
        self, epoch_audio: float, num_epochs: int, max_steps: int = 0, bar: bool = True, unit: str = "s"
    ) -> None:
        self.epoch_audio = epoch_audio
        self.num_epochs = num_epochs
        self.max_steps = max_steps
        self.rate = 0.0
        self._unit = unit
        self._wants_bar = bar
        self._bar: Any = None
        self._audio = 0.0
        self._seconds = 0.0
        self._steps = 0.0
        self._since: Optional[float] = None

    def start_epoch(self, epoch: int, audio_done: float) -> None:
        """Begin, or go on with, an epoch."""
        self.close()
        self.resume()
        if self._wants_bar and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=f"epoch {epoch}",
                total=max(self.epoch_audio, audio_done) or None,
                initial=audio_done,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} "
                + self._unit
                + ", {elapsed}<{remaining}{postfix}",
                dynamic_ncols=True,
                leave=False,
            )

    def update(self, audio: float, loss: float, eta: str) -> None:
        """One more batch with ``audio`` seconds was used."""
        now = time.monotonic()
        if self._since is not None:
            self._seconds = _MEMORY * self._seconds + now - self._since
            self._audio = _MEMORY * self._audio + audio
            self._steps = _MEMORY * self._steps + 1
            if self._seconds > 0:
                self.rate = self._audio / self._seconds
        self._since = now
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"loss {loss:.4g}, {self.rate:.1f} {self._unit}/s, run {eta}", refresh=False
            )
            self._bar.update(audio)

    def pause(self) -> None:
        """Do not count the time from here on (validation, saving)."""
        self._since = None

    def resume(self) -> None:
        """Count the time again."""
        self._since = time.monotonic()

    def eta(self, epoch: int, audio_done: float, batch_idx_train: int) -> str:
        """Time left of the whole run as h:mm:ss, or ``?`` as long as it cannot be told."""
        left = []
        if self.rate > 0 and self.epoch_audio > 0:
            audio = (self.num_epochs - epoch) * self.epoch_audio + max(0.0, self.epoch_audio - audio_done)
            left.append(audio / self.rate)
        if self.max_steps and self._steps:
            left.append(max(0, self.max_steps - batch_idx_train) * self._seconds / self._steps)
        if not left:
            return "?"
        seconds = int(min(left))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def share(self, audio_done: float) -> float:
        """How much of the epoch is done, from 0 to 1; 0 if it cannot be told."""
        return min(audio_done / self.epoch_audio, 1.0) if self.epoch_audio > 0 else 0.0

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
