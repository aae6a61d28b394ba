"""Kernels that cannot be imported, because triton is missing."""

import copy
import sys

import pytest

from asr_core.ops.gpu import dispatch


def test_questions_about_kernels_that_are_missing(monkeypatch):
    """hasattr, copies and inspection of a deferred module work without triton."""
    name = "asr_core.ops.gpu.activations"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)  # as if it were not installed
    kernels = dispatch.deferred("activations")
    assert not hasattr(kernels, "__wrapped__") and not hasattr(kernels, "swoosh_forward")
    assert copy.copy(kernels) is not kernels
    with pytest.raises(AttributeError, match=f"{name}.swoosh_forward needs triton, which is not installed"):
        kernels.swoosh_forward(None)
