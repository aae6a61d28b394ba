"""Recordings that a step of the preparation left out: how many it may, and the list of them.

The list lies beside what the step made. As long as it is there the step is not complete, and the
same command tries the recordings again.
"""

import re
from pathlib import Path
from typing import Sequence

from asr_core.utils.errors import UserError
from asr_core.utils.files import write_text_atomic
from asr_core.utils.paths import PathLike

_CUTS = re.compile(r"(^|_)cuts(?=_|$)")


def left_out_list(manifest: PathLike) -> Path:
    """Return the list of what a manifest lacks: x_left_out_train.txt for x_cuts_train.jsonl.gz."""
    path = Path(manifest)
    name = path.name.split(".jsonl")[0]
    listed, found = _CUTS.subn(r"\1left_out", name, count=1)
    return path.with_name(f"{listed}.txt" if found else f"{name}_left_out.txt")


def note_left_out(manifest: PathLike, lines: Sequence[str]) -> None:
    """Write the list of what a manifest lacks, one a line; remove it if there is nothing."""
    path = left_out_list(manifest)
    if lines:
        write_text_atomic(path, "".join(f"{line}\n" for line in lines))
    else:
        path.unlink(missing_ok=True)


def refuse_losses(source: PathLike, left_out: Sequence[str], number: int, max_share: float) -> None:
    """Refuse to go on without too many recordings.

    Args:
      source: what lists them, or the folder where they are.
      left_out: a line about each that cannot be read.
      number: of all.
      max_share: share of them that may be left out.

    Raises:
      UserError: it is more, or all.
    """
    lost = len(left_out)
    if lost and lost == number:
        what, else_ = f"none of the {number} recordings of {source} can be read", ""
    elif lost > max_share * number:
        what = (
            f"{lost} of the {number} recordings of {source} cannot be read, more than "
            f"--max-unreadable {max_share:g} allows"
        )
        else_ = "; or allow more"
    else:
        return
    raise UserError(
        f"{what}; the first: {left_out[0]}. Are all disks and networks there? "
        f"Then start the same command again, which reads these anew{else_}"
    )
