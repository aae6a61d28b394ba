"""How rows of channels are shared out among programs."""

from typing import Tuple

import triton

TILE = 2048  # elements that a program holds at a time, where a row is not longer
PROGRAMS = 1024  # enough for every GPU; partial sums of more would take long to add up
WIDEST = 16384  # channels of a row that fit into a program


def tile(channels: int) -> Tuple[int, int]:
    """Return the powers of two (rows, columns) of a tile that holds whole rows of ``channels``."""
    block = triton.next_power_of_2(channels)
    return max(1, TILE // block), block


def warps(rows: int, columns: int) -> int:
    """Return the warps of a program with tiles (rows, columns): 16 elements or so a thread."""
    return min(16, max(4, rows * columns // 512))


def share(num_rows: int, at_once: int, most: int = PROGRAMS) -> Tuple[int, int]:
    """Return into how many parts, at most ``most``, rows are split, and the rows of a part, a
    multiple of ``at_once``.
    """
    steps = max(1, triton.cdiv(num_rows, at_once))
    each = triton.cdiv(steps, most)
    return triton.cdiv(steps, each), each * at_once
