"""Random levels: features change as those of quieter audio do, some utterances at a time."""

import pytest
import torch
from recordings import tone

from asr_core.data.features import LOG_EPS, extract_features
from asr_core.data.gain import LEVELS, RandomGain, random_gain
from asr_core.data.options import DataOptions
from asr_core.utils.errors import UserError


def speech():
    """Samples (num_samples,) of a tone in noise, then a moment of digital silence."""
    return torch.cat([torch.from_numpy(tone(1.0, seed=1)).float(), torch.zeros(4800)])


@pytest.mark.parametrize("kind", ["fbank", "log-mel"])
@pytest.mark.parametrize("gain", [-10.0, -40.0, -80.0])
def test_features_change_as_those_of_quieter_audio(kind, gain):
    samples = speech()
    x = extract_features(samples, 16000, feature_type=kind)[None]
    want = extract_features(samples * 10 ** (gain / 20), 16000, feature_type=kind)
    got = LEVELS[kind].change(x, torch.tensor([gain]))[0]
    # both are rounded before the logarithm, which amplifies it near the floor of magnitudes
    assert torch.allclose(got, want, atol=2e-3 if kind == "fbank" else 0.05)
    assert (got[-10:] == x[0, -10:]).all()  # digital silence


@pytest.mark.parametrize("gain, most", [(-20.0, 0.1), (-40.0, 0.3)])
def test_quiet_files_of_16_bits_are_what_training_sees(gain, most):
    samples = speech()
    quiet = (samples * 10 ** (gain / 20) * 32768).round() / 32768
    got = LEVELS["fbank"].change(extract_features(samples, 16000)[None], torch.tensor([gain]))[0]
    assert (got - extract_features(quiet, 16000)).abs().mean() < most


def test_floor_and_padding_stay_where_they_are():
    level = LEVELS["fbank"]
    x = torch.tensor([level.floor, level.floor + 0.01, LOG_EPS, -10.0, -15.0]).view(1, 1, 5)
    stored = x.half().float()  # in which the floor may lie a little higher
    for gain, moved in ((-20.0, [-14.605, level.floor]), (20.0, [-5.395, -10.395])):
        got = level.change(stored, torch.tensor([gain]))[0, 0]
        assert torch.equal(got[:3], stored[0, 0, :3])
        assert got[3:].tolist() == pytest.approx(moved, abs=0.01)


def test_gains_of_a_share_of_the_utterances_within_the_range():
    x = torch.full((4000, 1, 2), 0.0)
    gain = RandomGain(LEVELS["fbank"], 0.3, -40.0, 10.0)
    state = torch.get_rng_state()
    changed = gain(x, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(changed, gain(x, seed=1)) and not torch.equal(changed, gain(x, seed=2))
    assert torch.equal(changed[:, 0, 0], changed[:, 0, 1]) and (x == 0).all()
    gains = (changed[:, 0, 0] / LEVELS["fbank"].nats_per_db)[changed[:, 0, 0] != 0]
    assert len(gains) / 4000 == pytest.approx(0.3, abs=0.03)
    assert -40 <= gains.min() < -38 and 8.5 < gains.max() <= 10 and gains.mean().abs() < 16


def test_they_are_on_by_default():
    assert random_gain(DataOptions()) == RandomGain(LEVELS["fbank"], 0.5, -40.0, 10.0)
    assert random_gain(DataOptions(feature_type="log-mel")).level is LEVELS["log-mel"]
    assert random_gain(DataOptions(gain_prob=0.0)) is None
    with pytest.raises(UserError, match="--gain-low 11 is above --gain-high 10"):
        random_gain(DataOptions(gain_low=11.0))
