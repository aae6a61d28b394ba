"""Compiled kernels: how they get their parameters, and how work is shared out among threads."""

from typing import NamedTuple

import pytest
import torch

from asr_core.ops.cpu import dispatch

pytestmark = pytest.mark.skipif(not dispatch.available(), reason="numba is not installed")

if dispatch.HAS_NUMBA:
    from asr_core.ops.cpu.arrays import Address, f32_array
    from asr_core.ops.cpu.parallel import Pointer, fields, kernel, next_piece

    class AddScaled(NamedTuple):
        """y (R,) += factor x (R,) + shift."""

        x: Address
        y: Address
        shift: int
        factor: float

    @kernel(AddScaled)
    def add_scaled(data: Pointer) -> None:
        a = fields(AddScaled, data)
        begin, end = next_piece(data)
        while begin < end:
            x = f32_array(a.x + 4 * begin, end - begin)
            y = f32_array(a.y + 4 * begin, end - begin)
            for i in range(x.size):
                y[i] += a.factor * x[i] + a.shift
            begin, end = next_piece(data)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
def test_every_row_is_done_once(rows, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, y = torch.arange(rows, dtype=torch.float32), torch.ones(rows)
        add_scaled(rows, 1, AddScaled(x, y, shift=-2, factor=0.5))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(y, 0.5 * x - 1)


def test_float_parameters_stand_last():
    class Wrong(NamedTuple):
        factor: float
        x: int

    with pytest.raises(TypeError, match="Wrong: .*last"):
        kernel(Wrong)(lambda data: None)
