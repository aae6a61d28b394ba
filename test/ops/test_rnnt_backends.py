"""The modules that are back ends of the RNN-T loss have the interface that is declared for them."""

import inspect

import pytest

from asr_core.ops.cpu.dispatch import HAS_NUMBA
from asr_core.ops.rnnt import torch_backend, triton_backend
from asr_core.ops.rnnt.backend import RnntBackend

if HAS_NUMBA:
    from asr_core.ops.rnnt import numba_backend

METHODS = [name for name, value in vars(RnntBackend).items() if inspect.isfunction(value) and name[0] != "_"]


@pytest.mark.parametrize("name", METHODS)
def test_functions_have_the_declared_parameters(name):
    declared = list(inspect.signature(getattr(RnntBackend, name)).parameters)[1:]
    for backend in [torch_backend, triton_backend] + ([numba_backend] if HAS_NUMBA else []):
        assert list(inspect.signature(getattr(backend, name)).parameters) == declared


def test_the_interface_is_not_empty():
    assert len(METHODS) == 11 and "score_dtype" in RnntBackend.__annotations__
