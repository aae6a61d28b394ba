"""The device that --device names."""

import pytest
import torch

from asr_core.utils.device import pick_device
from asr_core.utils.errors import UserError


@pytest.mark.parametrize(
    "device, has_cuda, found",
    [("auto", False, "cpu"), ("cpu", True, "cpu"), ("auto", True, "cuda:3"), ("cuda", True, "cuda:3")],
)
def test_each_rank_has_a_gpu_of_its_own(monkeypatch, device, has_cuda, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert str(pick_device(device, 3)) == found


def test_a_gpu_that_is_not_there_is_not_replaced(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda.*give --device cpu"):
        pick_device("cuda")
