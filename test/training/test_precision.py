"""The precision that options choose."""

import pytest
import torch

from asr_core.training.options import ProcessOptions
from asr_core.training.precision import autocast_dtype
from asr_core.utils.errors import UserError


def test_each_precision_needs_a_device_that_has_it(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert autocast_dtype(ProcessOptions(), cuda) is None
    assert autocast_dtype(ProcessOptions(use_bf16=True), cpu) == torch.bfloat16
    assert autocast_dtype(ProcessOptions(use_fp16=True), cuda) == torch.float16
    with pytest.raises(UserError, match="float16, and this run is on the cpu"):
        autocast_dtype(ProcessOptions(use_fp16=True), cpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match="this GPU has no bfloat16; use --use-fp16 1"):
        autocast_dtype(ProcessOptions(use_bf16=True), cuda)
