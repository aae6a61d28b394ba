"""The adaptive SpecAugment: its masks keep to their caps and their utterance, follow the
distribution, and repeat by seed.
"""

import pytest
import torch

from asr_core.data.augment import input_transforms
from asr_core.data.options import DataOptions
from asr_core.data.spec_augment import AdaptiveSpecAugment, draw_masks
from asr_core.data.two_views import TwoViews
from asr_core.utils.errors import UserError
from asr_core.utils.options import check_values


def runs(row):
    """Lengths of the stretches of True."""
    edges = torch.cat([torch.tensor([0]), row.int(), torch.tensor([0])]).diff()
    return ((edges == -1).nonzero() - (edges == 1).nonzero()).flatten().tolist()


@pytest.mark.parametrize(
    "size, ratio, most, longest",
    [(200, 0.05, 0, 10), (19, 0.05, 0, 1), (80, 1.0, 27, 27), (100, 0.29, 0, 29), (300, 0.05, 8, 8)],
)
def test_lengths_and_places_of_single_masks(size, ratio, most, longest):
    torch.manual_seed(0)
    draws = 4000
    masks = draw_masks(torch.full((draws,), size), 1, ratio, most, size + 3)
    assert not masks[:, size:].any()
    assert all(len(runs(row)) <= 1 for row in masks[:200])
    lengths = masks.sum(dim=1)
    counts = torch.bincount(lengths, minlength=longest + 1)
    assert len(counts) == longest + 1  # every length from 0 to the cap, all as often
    expected = draws / (longest + 1)
    assert ((counts - expected) ** 2 / expected).sum() < longest + 5 * (2 * max(1, longest)) ** 0.5
    starts = masks[lengths == longest].int().argmax(dim=1)
    assert starts.min() >= 0 and starts.max() <= size - longest
    assert abs(starts.float().mean() - (size - longest) / 2) < 5 * (size / 12**0.5) / len(starts) ** 0.5


def test_the_share_of_masked_frames_is_what_so_many_masks_give():
    torch.manual_seed(0)
    size, count, longest = 100, 10, 5
    masks = draw_masks(torch.full((3000,), size), count, 0.05, 0, size)
    position = 50  # far from the edges each start is as likely, so that one mask covers it with probability mean(l / (n - l + 1))
    one = sum(length / (size - length + 1) for length in range(longest + 1)) / (longest + 1)
    assert abs(masks[:, position].float().mean() - (1 - (1 - one) ** count)) < 0.04
    assert draw_masks(torch.tensor([size]), 0, 0.05, 0, size).sum() == 0


def test_only_valid_frames_are_masked_and_caps_follow_each_utterance():
    torch.manual_seed(0)
    x = torch.rand(3, 300, 80) + 1.0
    segments = torch.tensor([[0, 0, 300], [1, 20, 100], [2, 0, 7]])
    longest = [0, 0, 0]
    for _ in range(60):
        out = AdaptiveSpecAugment(time_masks=1, freq_masks=0)(x, segments)
        for i, (_, start, size) in enumerate(segments.tolist()):
            masked = (out[i] == 0).all(dim=1)
            assert torch.equal(out[i][~masked], x[i][~masked])
            assert not masked[:start].any() and not masked[start + size :].any()
            longest[i] = max(longest[i], int(masked.sum()))
    assert longest == [15, 5, 1]
    out = AdaptiveSpecAugment(time_masks=0, freq_masks=2)(x, segments)
    assert torch.equal(out[1, :20], x[1, :20]) and torch.equal(out[1, 120:], x[1, 120:])
    bins = (out[1, 20:120] == 0).all(dim=0)
    assert 0 < bins.sum() <= 54 and torch.equal(out[1, 20:120][:, ~bins], x[1, 20:120][:, ~bins])


def test_fill_and_probability():
    torch.manual_seed(0)
    x = torch.randn(40, 60, 8) + 5.0
    segments = torch.tensor([[i, 0, 50] for i in range(40)])
    out = AdaptiveSpecAugment(fill="mean", freq_mask_max=4)(x, segments)
    changed = out != x
    assert changed.any()
    mean = x[:, :50].mean(dim=(1, 2)).view(-1, 1, 1).expand_as(x)
    torch.testing.assert_close(out[changed], mean[changed])
    rows = (AdaptiveSpecAugment(p=0.5)(x, segments) != x).flatten(1).any(dim=1)
    assert 10 <= rows.sum() <= 30
    assert torch.equal(AdaptiveSpecAugment(p=0.0)(x), x)


def test_seeds_repeat_and_inputs_stay():
    x = torch.randn(4, 90, 80)
    before, augment = x.clone(), AdaptiveSpecAugment()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(augment(x))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2]) and torch.equal(x, before)


def test_options():
    (augment,) = input_transforms(DataOptions(spec_aug="adaptive"))
    assert vars(augment) == dict(
        time_masks=10,
        time_mask_ratio=0.05,
        time_mask_max=0,
        freq_masks=2,
        freq_mask_max=27,
        fill="zero",
        p=1.0,
    )
    assert input_transforms(DataOptions(spec_aug="adaptive", enable_spec_aug=False)) == []
    for bad, message in (
        ({"spec_aug": "park"}, "unknown --spec-aug 'park'; known: lhotse, adaptive"),
        ({"spec_aug_prob": 1.5}, "--spec-aug-prob must be at least 0 and at most 1"),
        ({"spec_aug_time_masks": -1}, "--spec-aug-time-masks must be at least 0"),
    ):
        with pytest.raises(UserError, match=message):
            check_values(DataOptions(**bad))


def test_two_views_are_masked_apart():
    x = torch.rand(3, 200, 80) + 1.0
    starts, lengths = torch.tensor([0, 10, 0]), torch.tensor([200, 150, 60])
    torch.manual_seed(0)
    out = TwoViews(0, 2.5, AdaptiveSpecAugment(time_masks=25))(x, starts, lengths)
    assert out.shape == (6, 200, 80) and not torch.equal(out[:3], out[3:])
    masked = out == 0
    assert torch.equal(out[~masked], x.repeat(2, 1, 1)[~masked])
    for i, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist())):
        for view in (i, i + 3):
            assert (
                masked[view].any()
                and not masked[view, :start].any()
                and not masked[view, start + length :].any()
            )
