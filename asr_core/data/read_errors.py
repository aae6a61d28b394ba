"""Errors of reading cuts: those of one cut, which is dropped, and those that end the run."""

from typing import NamedTuple, Union

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
    detail = f": {lines[0][:160]}" if lines else ""
    return f"unreadable ({type(e).__name__}{detail})"
