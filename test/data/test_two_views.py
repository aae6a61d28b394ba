"""The two views of CR-CTC: one warp for both, masks of their own for each."""

import random

import numpy as np
import torch
from lhotse.dataset.signal_transforms import time_warp
from waiting import Waiting

from asr_core.data.masks import draw_masks_of, warp_times
from asr_core.data.two_views import TwoViews


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def test_two_views_are_warped_alike_and_masked_apart():
    x = torch.randn(4, 300, 80).cumsum(1)
    starts, lengths = torch.tensor([0, 0, 10, 0]), torch.tensor([300, 280, 200, 40])
    views = TwoViews(80, 2.5)
    seed(3)
    out = views(x, starts, lengths)
    assert out.shape == (8, 300, 80) and not torch.equal(out[:4], out[4:])
    seed(3)
    warped = views._warp(x, starts, lengths)
    assert sum(not torch.equal(warped[i], x[i]) for i in range(3)) >= 1
    for row, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist())):
        assert torch.equal(warped[row, :start], x[row, :start]) and torch.equal(
            warped[row, start + length :], x[row, start + length :]
        )
    assert torch.equal(warped[3], x[3])  # too short to be warped
    masked = (out != warped.repeat(2, 1, 1)).float()
    assert 0.02 < masked.mean() < 0.7
    all_bins = masked.mean(dim=2) > 0.99
    assert all_bins.float().mean(dim=1).max() <= 0.375  # 0.15 times 2.5
    seed(3)
    assert torch.equal(views(x, starts, lengths), out)
    seed(4)
    assert not torch.equal(views(x, starts, lengths), out)


def test_batches_are_warped_and_masked_as_single_utterances():
    x = torch.randn(5, 400, 80, generator=torch.Generator().manual_seed(1)).cumsum(1) * 0.1
    starts, lengths = torch.tensor([0, 0, 10, 0, 200]), torch.tensor([400, 380, 350, 40, 300])
    views, expected = TwoViews(80, 2.5), x.clone()
    seed(5)
    for row, start, length in zip(expected, starts.tolist(), lengths.tolist()):
        if random.random() < 0.9:
            row[start : start + length] = time_warp(row[start : start + length].clone(), 80)
    expected = views.mask(expected.repeat(2, 1, 1))
    draws = random.random(), np.random.rand(), float(torch.rand(1))
    seed(5)
    torch.testing.assert_close(views(x, starts, lengths), expected, rtol=1e-5, atol=1e-5)
    assert draws == (random.random(), np.random.rand(), float(torch.rand(1)))
    assert (expected[:5] != x).any() and (expected[:5] != expected[5:]).any()


def test_the_host_waits_for_nothing():
    x = torch.randn(3, 300, 80)
    views = TwoViews(80, 2.5)
    drawn, warps = draw_masks_of(views.mask, (6, 300, 80), None), torch.tensor([[0, 300, 150, 120]] * 3)
    with Waiting() as waiting:
        drawn.apply(warp_times(x, warps).repeat(2, 1, 1))
    assert not waiting.found and waiting.calls > 10


def test_views_without_warping_and_of_hardly_any_frames():
    x = torch.randn(2, 12, 80)
    lengths = torch.tensor([12, 9])
    assert torch.equal(TwoViews(0, 0.1)(x, torch.zeros(2), lengths), x.repeat(2, 1, 1))
    assert TwoViews(80, 2.5)(x, torch.zeros(2, dtype=torch.int64), lengths).shape == (4, 12, 80)
