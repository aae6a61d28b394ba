"""Features of whole batches, warped and masked by tensor operations, are those of single utterances."""

import dataclasses
import random

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from lhotse.augmentation import Speed
from recordings import tone

from asr_core.data.audio import resample
from asr_core.data.augment import adaptive_spec_augment, lhotse_spec_augment
from asr_core.data.device_features import (
    FeatureForm,
    batch_features,
    features_on,
    inputs_on,
    shape_of_features,
    with_inputs_on,
)
from asr_core.data.features import LOG_EPS, extract_features
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.masks import draw_masks_of
from asr_core.data.module import AsrDataModule
from asr_core.data.options import DataOptions
from asr_core.data.polyphase import Resampling, has_filters, resample_batch
from asr_core.decoding.encoding import supervised_features
from asr_core.utils.errors import UserError

FORMS = [FeatureForm(), FeatureForm(8000, 40, "fbank"), FeatureForm(16000, 80, "log-mel")]
CPU = torch.device("cpu")


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_batch_has_the_features_of_its_utterances(form):
    torch.manual_seed(0)
    sizes = [20000, 16000, 12345, 401, 399, 250, 80, 79, 1, 0]  # shorter than a window, and than a shift
    audio = torch.zeros(len(sizes), max(sizes) + 123)
    for row, size in zip(audio, sizes):
        row[:size] = torch.randn(size).clamp(-1, 1) * 0.3
    frames = [form.count_frames(size) for size in sizes]
    got = batch_features(audio, torch.tensor(sizes), torch.tensor(frames), form)
    for row, samples, size, count in zip(got, audio, sizes, frames):
        expected = extract_features(samples[:size], *form)
        assert len(expected) == count
        torch.testing.assert_close(row[:count], expected, rtol=1e-4, atol=1e-4)
        assert (row[count:] == LOG_EPS).all()
        torch.testing.assert_close(features_on(samples[:size], form, CPU), expected, rtol=1e-4, atol=1e-4)


def test_samples_of_16_bits_and_long_audio_in_pieces(monkeypatch):
    monkeypatch.setattr("asr_core.data.device_features._PIECE", 7)
    audio = torch.from_numpy((tone(1.0, pitch=300, seed=1) * 20000).astype(np.int16))
    got = features_on(audio, FeatureForm(), CPU)
    torch.testing.assert_close(got, extract_features(audio, *FeatureForm()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "source, target, speed",
    [
        (8000, 16000, 0.0),
        (44100, 16000, 0.0),
        (48000, 16000, 0.0),
        (16000, 8000, 0.0),
        (14400, 16000, 0.9),
        (17600, 16000, 1.1),
    ],
)
def test_batches_are_resampled_as_single_utterances(source, target, speed):
    torch.manual_seed(0)
    x = torch.randn(2, source // 3 + 7)
    x[1, -1000:] = 0.0
    got = resample_batch(x, Resampling(source, target, speed))
    if speed:
        expected = torch.from_numpy(Speed(speed)(x.numpy(), target))
    else:
        expected = resample(x, source, target)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert has_filters(source, target) and not has_filters(44100, 16001)


@pytest.mark.parametrize("kind", ["lhotse", "lhotse without warping", "zero", "mean"])
def test_spec_augment_on_a_device_is_that_of_the_cpu(kind):
    opts = DataOptions(spec_aug_fill=kind if kind in ("zero", "mean") else "zero", spec_aug_prob=0.7)
    augment = adaptive_spec_augment(opts)
    if kind.startswith("lhotse"):
        augment = lhotse_spec_augment(time_warp_factor=80 if kind == "lhotse" else 0)
    x = torch.randn(6, 500, 80, generator=torch.Generator().manual_seed(3)) - 5.0
    segments = torch.tensor([[0, 0, 500], [1, 20, 400], [2, 0, 300], [3, 0, 170], [4, 0, 100], [5, 0, 300]])
    outcomes = []
    for on_device in (False, True):
        random.seed(5), np.random.seed(5), torch.manual_seed(5)
        if on_device:
            outcomes.append(draw_masks_of(augment, x.shape, segments.int()).apply(x))
        else:
            outcomes.append(augment(x.clone(), supervision_segments=segments.int()))
        outcomes.append(torch.rand(1) + random.random() + np.random.rand())  # equally many draws
    torch.testing.assert_close(outcomes[2], outcomes[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(outcomes[1], outcomes[3]) and not torch.equal(outcomes[0], x)


def test_other_transforms_are_refused():
    with pytest.raises(TypeError, match="function cannot tell its masks"):
        draw_masks_of(lambda x: x, (1, 10, 80), torch.tensor([[0, 0, 10]]))


@pytest.fixture(scope="module")
def mixed_rates(tmp_path_factory):
    """A manifest of cuts at 8, 16 and 44.1 kHz, of which some have a pause at their end."""
    folder, cuts = tmp_path_factory.mktemp("rates"), []
    for i in range(12):
        rate = (16000, 8000, 44100)[i % 3]
        samples = np.concatenate(
            [tone(0.4 + i / 10, pitch=200 + 30 * i, seed=i)] * (3 if rate > 40000 else 1)
        )
        # without a noise floor, faint filters would have the noise of the computation
        samples = 0.5 * samples + 0.02 * np.random.default_rng(i).standard_normal(len(samples))
        soundfile.write(folder / f"u{i}.wav", samples, rate)
        cut = make_cut(f"u{i}", folder / f"u{i}.wav", len(samples), rate, "one two")
        if i % 4 == 1:
            cut.supervisions[0].duration = cut.duration * 0.8
        cuts.append(cut)
    path = folder / "toy_cuts_train.jsonl.gz"
    write_cuts(cuts, path)
    return CutSet.from_file(path)


@pytest.mark.parametrize("feature_type", ["fbank", "log-mel"])
@pytest.mark.parametrize("workers", [0, 1])
def test_training_batches_are_those_of_the_cpu(mixed_rates, feature_type, workers):
    opts = DataOptions(
        on_the_fly_feats=True,
        feature_type=feature_type,
        max_duration=4,
        num_buckets=2,
        num_workers=workers,
        tail_silence_prob=0.5,
        speed_perturb=True,
        enable_musan=False,
        drop_last=False,
    )
    batches = []
    for on_device in (False, True):
        module = AsrDataModule(dataclasses.replace(opts, features_on_device=on_device), seed=3)
        batches.append(list(module.train_dataloader(mixed_rates, epoch=2)))
    assert len(batches[0]) == len(batches[1]) > 3 and {"plan"} <= set(batches[1][0])
    for expected, batch in zip(*batches):
        assert batch["inputs"].dtype == torch.int16 and not len(batch["plan"].mix.floats)
        assert shape_of_features(batch) == shape_of_features(expected) == list(expected["inputs"].shape)
        got = with_inputs_on(batch, CPU)
        assert "plan" not in got and torch.equal(inputs_on(got, CPU), got["inputs"])
        # above the band of audio at 8 kHz there is hardly more than what resampling rounds
        torch.testing.assert_close(got["inputs"], expected["inputs"], rtol=1e-4, atol=2e-3)
        for name in ("start_frame", "num_frames"):
            assert torch.equal(got["supervisions"][name], expected["supervisions"][name])
        assert got["supervisions"]["text"] == expected["supervisions"]["text"]


def test_decoding_takes_the_supervised_frames(mixed_rates):
    opts, found = DataOptions(on_the_fly_feats=True, max_duration=4, num_workers=0), []
    for on_device in (False, True):
        module = AsrDataModule(dataclasses.replace(opts, features_on_device=on_device))
        batches = module.test_dataloader(mixed_rates)
        found.append([x for batch in batches for x in supervised_features(batch, CPU)])
    assert len(found[0]) == len(found[1]) == len(list(mixed_rates))
    for got, expected in zip(*found):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-3)


def test_stored_features_are_refused():
    with pytest.raises(UserError, match="--features-on-device 1 .* give --on-the-fly-feats 1"):
        AsrDataModule(DataOptions(features_on_device=True))
