"""The device and the precision that options choose."""

import pytest
import torch

from asr_core.training.distributed.device import autocast_dtype, pick_device
from asr_core.training.options import ProcessOptions
from asr_core.utils.errors import UserError


@pytest.mark.parametrize(
    "device, has_cuda, found",
    [("auto", False, "cpu"), ("cpu", True, "cpu"), ("auto", True, "cuda:3"), ("cuda", True, "cuda:3")],
)
def test_each_rank_has_a_gpu_of_its_own(monkeypatch, device, has_cuda, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert str(pick_device(ProcessOptions(device=device), local_rank=3)) == found


def test_a_gpu_that_is_not_there_is_not_replaced(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda.*give --device cpu"):
        pick_device(ProcessOptions(device="cuda"))


def test_precision(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert autocast_dtype(ProcessOptions(), cuda) is None
    assert autocast_dtype(ProcessOptions(use_bf16=True), cpu) == torch.bfloat16
    assert autocast_dtype(ProcessOptions(use_fp16=True), cuda) == torch.float16
    with pytest.raises(UserError, match="float16, and this run is on the cpu"):
        autocast_dtype(ProcessOptions(use_fp16=True), cpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match="this GPU has no bfloat16; use --use-fp16 1"):
        autocast_dtype(ProcessOptions(use_bf16=True), cuda)
