"""The exception for user errors."""


class UserError(Exception):
    """A user error: a wrong option, a missing file, damaged input.

    Programs print its message as one line on stderr and exit with status 1, so the message says
    what is wrong, where, and what to do about it. Any other exception that escapes a program is a
    bug and keeps its traceback.
    """
