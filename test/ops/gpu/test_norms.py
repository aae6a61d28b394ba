"""BiasNorm and BasicNorm by Triton's kernels, in its interpreter, against the formulas in float64."""

import pytest
import torch
from kernel_checks import TOLERANCE, assert_close, gradients, random

from asr_core.ops import basic_norm, norm
from asr_core.ops.gpu import norms, tiles


@pytest.fixture(autouse=True)
def no_other_kernels(monkeypatch):
    monkeypatch.setattr(norm, "usable", lambda *_: pytest.fail("not Triton's kernel"))


# rows of one element, more rows than a tile and than a part, wide rows
SHAPES = [(5, 1), (3, 2, 7), (2, 65, 24), (2, 2, 2500)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_bias_norm(shape, dtype, monkeypatch):
    monkeypatch.setattr(norms, "_PARTS", 2)
    x, bias = random(*shape, dtype=dtype, scale=3.0, shift=1.0), random(shape[-1], seed=1, scale=0.3)
    log_scale, dy = torch.tensor(0.4), random(*shape, dtype=dtype, seed=2)
    got = gradients(norm.bias_norm, [x, bias, log_scale], dy)
    exact = gradients(norm.bias_norm_plain, [x.double(), bias.double(), log_scale.double()], dy)
    assert [t.dtype for t in got] == [dtype, dtype, torch.float32, torch.float32]
    assert_close(got[:2], exact[:2], dtype)
    assert_close(got[2:], exact[2:], torch.float32, grown=4.0)  # summed in float32 whatever x is


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_basic_norm(shape, dtype, monkeypatch):
    monkeypatch.setattr(norms, "_PARTS", 2)
    x, log_eps = random(*shape, dtype=dtype, scale=2.0), torch.tensor(-0.7)
    dy = random(*shape, dtype=dtype, seed=2)
    got = gradients(basic_norm.basic_norm, [x, log_eps], dy)
    exact = gradients(basic_norm.basic_norm_plain, [x.double(), log_eps.double()], dy)
    assert [t.dtype for t in got] == [dtype, dtype, torch.float32]
    assert_close(got[:2], exact[:2], dtype)
    assert_close(got[2:], exact[2:], torch.float32, grown=4.0)


def test_a_row_of_zeros_stays_zero():
    x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    y, dx, dbias, dscale = gradients(
        norm.bias_norm, [x, torch.full((3,), 1e-4), torch.tensor(0.0)], torch.ones(2, 3)
    )
    assert (y[0] == 0).all() and all(t.isfinite().all() for t in (dx, dbias, dscale))


def test_layers_too_wide_for_a_program_take_the_formula(monkeypatch):
    monkeypatch.setattr(tiles, "WIDEST", 4)
    monkeypatch.setattr(norm, "usable", lambda *_: False)
    x, bias, scale = random(3, 5), random(5, seed=1), torch.tensor(0.3)
    torch.testing.assert_close(norm.bias_norm(x, bias, scale), norm.bias_norm_plain(x, bias, scale))


def test_rows_out_of_order_and_none():
    x, bias = random(4, 6, 5).transpose(0, 2), random(4, seed=1, scale=0.1)
    torch.testing.assert_close(
        norm.bias_norm(x, bias, torch.tensor(0.3)), norm.bias_norm_plain(x, bias, torch.tensor(0.3))
    )
    y, dx, dbias, _ = gradients(
        norm.bias_norm, [torch.zeros(0, 4), bias, torch.tensor(0.3)], torch.zeros(0, 4)
    )
    assert y.shape == dx.shape == (0, 4) and (dbias == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types_under_autocast(dtype):
    with torch.autocast("cpu", dtype):
        for x in (torch.randn(2, 4), torch.randn(2, 4).to(dtype)):
            assert norm.bias_norm(x, torch.full((4,), 0.01), torch.tensor(0.1)).dtype == x.dtype
            assert basic_norm.basic_norm(x, torch.tensor(0.1)).dtype == x.dtype
