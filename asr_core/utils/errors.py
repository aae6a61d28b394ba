"""The exception for user errors."""


class UserError(Exception):
    """A user error: a wrong option, a missing file, damaged input.

    Programs print its message as one line on stderr and exit with status 1, so the message says
    the problem, its place, and the remedy. Any other exception that escapes a program is a
    bug and keeps its traceback.
    """


class ProcessLost(UserError):
    """A process that works for this one has died; its work so far is whole."""
