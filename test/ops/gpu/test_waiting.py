"""A training step reads nothing from the device until the host wants to know the losses."""

import random
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_options import TINY
from torch.overrides import TorchFunctionMode

from asr_core.models import ModelOptions, build_model
from asr_core.nn.scaling import set_batch_count
from asr_core.ops import ctc_loss
from asr_core.ops.cpu import dispatch as cpu_dispatch
from asr_core.ops.gpu import dispatch as gpu_dispatch
from asr_core.training.forward_backward import _guarded
from asr_core.training.optim.adam import build_adam
from asr_core.training.optim.stepper import GradientScaling, Stepper
from asr_core.training.optimizer_options import OptimizerOptions
from asr_core.utils.options import from_params

READS = {
    *("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"),
    *("nonzero", "masked_select", "unique", "is_nonzero", "equal"),
}
# What the host has itself, and questions that are asked of tensors on the CPU alone.
ALLOWED = {
    "_least_range": "lengths that the loader gave",
    "may_be_padded": "lengths on the CPU",
    "check_within": "indices on the CPU",
    "whole_boundary": "a boundary on the CPU",
    "_add_penalty": "a metric on the CPU",
    "exp_rows": "sums on the CPU",
    "get": "what Later has brought to the host meanwhile",
}


class Reads(TorchFunctionMode):
    """Notes the functions of ours that read values of tensors, but for kernels that are interpreted.

    Attributes:
      calls: number of calls of torch.
      places: names of functions, and what they call.
    """

    def __init__(self):
        super().__init__()
        self.calls, self.places = 0, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        name = getattr(func, "__name__", "")
        if name in READS:
            self._note(sys._getframe(1), name)
        return func(*args, **(kwargs or {}))

    def _note(self, frame, name):
        while frame is not None:
            place = frame.f_code.co_filename.replace("\\", "/")
            if "/triton/" in place:
                return
            if "/asr_core/" in place:
                if frame.f_code.co_name not in ALLOWED:
                    self.places.append((frame.f_code.co_name, name))
                return
            frame = frame.f_back


@pytest.fixture
def kernels(monkeypatch):
    """Plain operations of torch, which are quick, but for the CTC loss: torch's reads lengths."""
    for name in ("ASR_CORE_TRITON", "ASR_CORE_CPU_KERNELS"):
        monkeypatch.setenv(name, "0")
    for question in (gpu_dispatch.available, gpu_dispatch.interpreted, cpu_dispatch.available):
        question.cache_clear()
    monkeypatch.setattr(ctc_loss, "gpu", SimpleNamespace(usable=lambda *_: True))
    yield
    monkeypatch.undo()
    cpu_dispatch.available.cache_clear()


def model_and_batch():
    torch.manual_seed(0)
    heads = {"use_ctc": True, "use_attention_decoder": True, "decoder_dim": 16, "joiner_dim": 16}
    decoder = {"dim": 16, "num_layers": 1, "num_heads": 2, "attention_dim": 16, "feedforward_dim": 16}
    heads.update({f"attention_decoder_{name}": value for name, value in decoder.items()})
    model = build_model(from_params(ModelOptions, {**TINY["zipformer"], **heads, "causal": False}), 12)
    set_batch_count(model, 100.0)
    return model.train(), (torch.randn(2, 60, 80), torch.tensor([60, 45]), [[3, 4, 4], [5]])


def test_a_step_reads_nothing(kernels):
    model, batch = model_and_batch()
    optimizer = build_adam(model, OptimizerOptions(optim="adam", base_lr=1e-3))
    no_scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(optimizer, no_scaler, GradientScaling("utterances", 1.0))
    stepper._asks_nothing = True  # as on a GPU
    random.seed(0)
    for step in (1, 2):  # the first one makes states
        with Reads() as reads:
            loss = sum(part for part in model(*batch, reduction="sum") if part is not None)
            _guarded(loss).backward()
            stepper.start({"utterances": 2.0})
        assert stepper.settle(step)
        assert reads.calls > 100
        assert reads.places == []


def test_reading_is_noticed(kernels, monkeypatch):
    model, batch = model_and_batch()
    monkeypatch.setattr(ctc_loss, "gpu", SimpleNamespace(usable=lambda *_: False))
    with Reads() as reads:
        model(*batch)
    assert ("ctc_loss", "cpu") in reads.places
