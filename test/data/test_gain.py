"""Random levels: features change as those of quieter audio do, some utterances at a time, in training only."""

import pytest
import torch
from batches import data_options, same
from lhotse import CutSet
from recordings import tone

from asr_core.data.augment import input_transforms
from asr_core.data.features import LOG_EPS, extract_features
from asr_core.data.gain import OF_FEATURES, SAMPLES, RandomGain
from asr_core.data.module import AsrDataModule
from asr_core.data.options import DataOptions
from asr_core.utils.errors import UserError

NONE = torch.zeros(0, 3, dtype=torch.int32)


def speech():
    """Samples (num_samples,) of a tone in noise, then a moment of digital silence."""
    return torch.cat([torch.from_numpy(tone(1.0, seed=1)).float(), torch.zeros(4800)])


@pytest.mark.parametrize("kind", ["fbank", "log-mel"])
@pytest.mark.parametrize("gain", [-10.0, -40.0, -80.0])
def test_features_change_as_those_of_quieter_audio(kind, gain):
    samples = speech()
    x = extract_features(samples, 16000, feature_type=kind)[None]
    want = extract_features(samples * 10 ** (gain / 20), 16000, feature_type=kind)
    got = OF_FEATURES[kind].change(x, torch.tensor([gain]))[0]
    # both are rounded before the logarithm, which amplifies it near the floor of magnitudes
    assert torch.allclose(got, want, atol=2e-3 if kind == "fbank" else 0.05)
    assert (got[-10:] == x[0, -10:]).all()  # digital silence


@pytest.mark.parametrize("gain, most", [(-20.0, 0.1), (-40.0, 0.3)])
def test_quiet_files_of_16_bits_are_what_training_sees(gain, most):
    samples = speech()
    quiet = (samples * 10 ** (gain / 20) * 32768).round() / 32768
    got = OF_FEATURES["fbank"].change(extract_features(samples, 16000)[None], torch.tensor([gain]))[0]
    assert (got - extract_features(quiet, 16000)).abs().mean() < most


def test_floor_and_padding_stay_where_they_are():
    level = OF_FEATURES["fbank"]
    x = torch.tensor([level.floor, level.floor + 0.01, LOG_EPS, -10.0, -15.0]).view(1, 1, 5)
    stored = x.half().float()  # in which the floor may lie a little higher
    for gain, moved in ((-20.0, [-14.605, level.floor]), (20.0, [-5.395, -10.395])):
        got = level.change(stored, torch.tensor([gain]))[0, 0]
        assert torch.equal(got[:3], stored[0, 0, :3])
        assert got[3:].tolist() == pytest.approx(moved, abs=0.01)


def test_samples_are_multiplied():
    x = torch.rand(2, 100)
    got = SAMPLES.change(x, torch.tensor([-20.0, 0.0]))
    assert torch.allclose(got, x * torch.tensor([[0.1], [1.0]]))


def test_gains_of_a_share_of_the_utterances_within_the_range():
    x = torch.full((4000, 1, 2), 0.0)
    torch.manual_seed(1)
    changed = RandomGain(OF_FEATURES["fbank"], 0.3, -40.0, 10.0)(x, NONE)
    assert torch.equal(changed[:, 0, 0], changed[:, 0, 1]) and (x == 0).all()
    gains = (changed[:, 0, 0] / OF_FEATURES["fbank"].nats_per_db)[changed[:, 0, 0] != 0]
    assert len(gains) / 4000 == pytest.approx(0.3, abs=0.03)
    assert -40 <= gains.min() < -38 and 8.5 < gains.max() <= 10 and gains.mean().abs() < 16


def test_they_are_on_by_default_and_before_spec_augment():
    first, second = input_transforms(DataOptions())
    assert first == RandomGain(OF_FEATURES["fbank"], 0.5, -40.0, 10.0) and second.p == 0.9
    assert input_transforms(DataOptions(feature_type="log-mel"))[0].level is OF_FEATURES["log-mel"]
    audio = input_transforms(DataOptions(input_strategy="AudioSamples", enable_spec_aug=False))
    assert [transform.level for transform in audio] == [SAMPLES]
    with pytest.raises(UserError, match="--gain-low 11 is above --gain-high 10"):
        input_transforms(DataOptions(gain_low=11.0))


def test_only_training_batches_change(feature_cuts):
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    plain, gained = (
        AsrDataModule(data_options(enable_spec_aug=False, gain_prob=p, gain_high=-20.0)) for p in (0.0, 1.0)
    )
    before, after = (next(iter(m.train_dataloader(cuts, 1)))["inputs"] for m in (plain, gained))
    fallen = after.mean(dim=(1, 2)) - before.mean(dim=(1, 2))
    assert (fallen < -1).all() and len(fallen.unique()) == len(fallen)
    for name in ("valid_dataloader", "test_dataloader"):
        assert all(map(same, getattr(plain, name)(cuts), getattr(gained, name)(cuts)))
