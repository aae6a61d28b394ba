"""Errors of reading cuts: those of one cut, which is dropped, and those that end the run."""

from collections import deque
from typing import Deque, NamedTuple, Sequence, Union

from asr_core.utils.errors import UserError


class UnusableFeatures(UserError):
    """Stored features that this run cannot use.

    That is no fault of a single cut: all others would fail likewise, so the run ends. The message
    completes the sentence "the features of <cut> are ...".
    """


class MissingPackage(UnusableFeatures):
    """Stored features whose format needs a package that is not installed."""


class OtherFeatures(UnusableFeatures):
    """Stored features of another kind than the model's."""


class UnusableSet(UserError):
    """A set of cuts of which nothing, or too little, can be used."""


class TooManyUnreadable(UnusableSet):
    """More cuts are unreadable than the options allow; those read so far are good."""


class UnreadableCut(Exception):
    """A cut whose features or audio cannot be read; the message is the reason in one line."""


ReadError = Union[UnusableFeatures, UnreadableCut]


class DroppedCut(NamedTuple):
    """A cut that was left out of its batch.

    Attributes:
      cut_id: its id, or the beginning of its line where not even that can be read.
      error: why it was left out.
    """

    cut_id: str
    error: ReadError


class ReadMonitor:
    """Count of the cuts that cannot be read, which ends the run if they are too many.

    It looks at the last cuts, as many as there are in the set but at most 1000, so that data that
    vanish in the middle of a long epoch are noticed at once.

    Args:
      max_share: the share of unreadable cuts that is accepted.
      number: cuts of the set that will be read; 0 if unknown.
      name: of the set, for messages.
    """

    _MOST = 1000

    def __init__(self, max_share: float, number: int, name: str) -> None:
        self.max_share = max_share
        self.name = name
        self._last: Deque[bool] = deque(maxlen=min(number or self._MOST, self._MOST))
        self._bad = 0

    def record(self, num_read: int, dropped: Sequence[DroppedCut]) -> None:
        """Record a batch.

        Raises:
          TooManyUnreadable: too many could not be read.
        """
        for bad in (False,) * num_read + (True,) * len(dropped):
            if len(self._last) == self._last.maxlen:
                self._bad -= self._last[0]
            self._last.append(bad)
            self._bad += bad
        if dropped and self._bad > self.max_share * (self._last.maxlen or 1):
            self._refuse(dropped[-1])

    def _refuse(self, last: DroppedCut) -> None:
        raise TooManyUnreadable(
            f"{self.name}: {self._bad} of the last {len(self._last)} cuts could not be read, more than "
            f"--max-unreadable {self.max_share:g} of {self._last.maxlen} allows; the last, {last.cut_id}: "
            f"{last.error}. Are all disks and networks there? "
            "Then start the same command again, or allow more"
        )


def as_read_error(e: Exception) -> ReadError:
    """Convert ``e``, from any reader, to a read error.

    Readers' own exceptions do not all survive the way from a loader process to the main process;
    these do. They are new and have no traceback: where tracebacks are pickled, too (tblib, which
    Dask installs, does so), one would keep the frames alive that receive it, and with them the
    loader.
    """
    if isinstance(e, UnusableFeatures):
        return type(e)(str(e))
    if isinstance(e, ImportError):
        return MissingPackage(f"stored in a form that needs another package: {e}")
    return UnreadableCut(short_reason(e))


def short_reason(e: BaseException) -> str:
    """Return in one line why a recording could not be read."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith("Details:"):  # lhotse's: each reader has a line with its reason
        lines = [lines[1].rpartition(">: ")[2]]
    detail = f": {lines[0][:160]}" if lines else ""
    return f"unreadable ({type(e).__name__}{detail})"
