"""Triton's interpreter, which runs kernels on CPU tensors."""

import pytest

from asr_core.ops.gpu import dispatch


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Send CPU tensors to the kernels."""
    pytest.importorskip("triton")
    monkeypatch.setenv("ASR_CORE_TRITON", "interpret")
    for question in (dispatch.available, dispatch.interpreted):
        question.cache_clear()
    yield
    monkeypatch.undo()
    for question in (dispatch.available, dispatch.interpreted):
        question.cache_clear()
