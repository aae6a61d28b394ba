"""Training on digital silence, where all frames are equal and every statistic of variation is 0."""

import pytest
import torch
from tiny_encoders import TINY, model_of

from asr_core.data.features import LOG_EPS


@pytest.mark.parametrize("name", TINY)
def test_gradients_are_finite(name):
    model = model_of(name).train()
    for level in (LOG_EPS, -15.9, 0.0):
        model.zero_grad()
        out, _ = model.forward_encoder(torch.full((1, 250, 80), level), torch.tensor([250]))
        (out.square().mean() + out.sum()).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients and all(g.isfinite().all() for g in gradients)
