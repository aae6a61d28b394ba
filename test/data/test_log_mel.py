"""The second kind of features against their formula, in both amplitudes, piece by piece, stored and
checked.
"""

import json

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet
from manifests import read_cuts
from recordings import tone

from asr_core.bin import compute_fbank
from asr_core.data.audio import load_audio
from asr_core.data.augment import MixNoise
from asr_core.data.dataset import FeaturesOfAudio, StoredFeatures, seeded
from asr_core.data.features import FeatureStream, describe_features, extract_features
from asr_core.data.log_mel import LogMel, num_frames
from asr_core.data.module import AsrDataModule
from asr_core.data.options import FEATURE_TYPES, DataOptions
from asr_core.utils.errors import UserError


def slow_log_mel(x, rate=16000, num_mel=80):
    """(T, C) of samples in [-1, 1], in float64, with a loop over frames and filters and a sum in
    place of the FFT.
    """
    shift, window, fft = rate // 100, rate // 40, 512 if rate == 16000 else 256
    x = np.asarray(x, dtype=np.float64) * 32768.0
    count = max(1, int(np.ceil((len(x) - (window + 1) + shift) / shift)))
    x = np.concatenate([x, np.zeros(window + 1)])
    mel = lambda f: 1127.0 * np.log(1.0 + f / 700.0)  # noqa: E731
    low, high = mel(125.0), mel(0.95 * rate / 2)
    step = (high - low) / (num_mel + 1)
    n = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(fft // 2 + 1), n) / fft)
    out = np.empty((count, num_mel))
    for t in range(count):
        frame = x[t * shift : t * shift + window + 1]
        magnitude = np.abs(waves @ (hann * (frame[1:] - 0.97 * frame[:-1])))
        for c in range(num_mel):
            centre = low + (c + 1) * step
            total = 0.0
            for k in range(1, fft // 2 + 1):
                total += max(0.0, 1.0 - abs(mel(k * rate / fft) - centre) / step) * magnitude[k]
            out[t, c] = np.log(max(total, 1e-8))
    return out


@pytest.mark.parametrize("samples, rate", [(1600, 16000), (100, 16000), (1234, 8000)])
def test_formula(samples, rate):
    x = tone(samples / rate, rate)
    got, want = extract_features(torch.from_numpy(x), rate, 40, "log-mel"), slow_log_mel(x, rate, 40)
    assert got.shape == want.shape and got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, atol=2e-3)


def test_number_of_frames():
    for samples, frames in ((576_000, 3599), (480_000, 2999), (16_000, 99), (401, 1), (402, 2), (1, 1)):
        assert num_frames(samples, 16000) == frames
        assert len(extract_features(torch.zeros(samples), 16000, 80, "log-mel")) == frames


def test_silence_is_the_floor_and_twice_the_amplitude_is_ln_2_more():
    assert torch.allclose(extract_features(torch.zeros(800), 16000, 80, "log-mel"), torch.tensor(1e-8).log())
    x = torch.from_numpy(tone(0.2))
    difference = extract_features(2 * x, 16000, 80, "log-mel") - extract_features(x, 16000, 80, "log-mel")
    torch.testing.assert_close(difference, torch.full_like(difference, np.log(2.0)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", FEATURE_TYPES)
def test_integers_and_floats_and_files_give_the_same(kind, tmp_path):
    integers = (tone(0.5) * 32768).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", integers, 16000, subtype="PCM_16")
    of_integers = extract_features(torch.from_numpy(integers), 16000, 80, kind)
    of_floats = extract_features(torch.from_numpy(integers / np.float32(32768)), 16000, 80, kind)
    assert torch.equal(of_integers, of_floats)
    assert torch.equal(of_integers, extract_features(load_audio(tmp_path / "a.wav"), 16000, 80, kind))
    stream = FeatureStream(feature_type=kind)
    parts = [stream.accept(torch.from_numpy(part)) for part in np.array_split(integers, 7)]
    torch.testing.assert_close(torch.cat([*parts, stream.finish()]), of_integers, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", FEATURE_TYPES)
@pytest.mark.parametrize(
    "rate, sizes",
    [(16000, (160, 1, 399, 2000, 7, 161, 3000)), (8000, (3000,)), (16000, (50, 500)), (22050, (700,) * 5)],
)
def test_pieces_give_the_features_of_the_whole(kind, rate, sizes):
    x = torch.from_numpy(tone(sum(sizes) / rate, rate))
    stream, parts, done = FeatureStream(rate, 40, kind), [], 0
    for piece in x.split(sizes):
        parts.append(stream.accept(piece))
        done += len(piece)
        assert sum(map(len, parts)) >= (done - rate // 35) // (rate // 100)  # no frame is kept back
    whole = extract_features(x, rate, 40, kind)
    torch.testing.assert_close(torch.cat([*parts, stream.finish()]), whole, atol=1e-3, rtol=1e-4)


def test_mixing_adds_energies():
    x = extract_features(torch.from_numpy(tone(0.3)), 16000, 80, "log-mel").numpy().astype(np.float64)
    np.testing.assert_allclose(LogMel.mix(x, x, 3.0), x + np.log(2.0))
    assert LogMel.compute_energy(x + np.log(3.0)) == pytest.approx(9 * LogMel.compute_energy(x))


@pytest.fixture(scope="module")
def log_mel_cuts(audio_cuts, tmp_path_factory):
    """The shared cuts with stored features of the second kind: (path)."""
    folder = tmp_path_factory.mktemp("log-mel")
    folders = ["--src-dir", str(audio_cuts.parent), "--output-dir", str(folder)]
    compute_fbank.main(
        [*folders, "--prefix", "toy", "--parts", "train", "--nj", "1", "--feature-type", "log-mel"]
    )
    return folder / audio_cuts.name


def test_stored_features_are_those_computed_while_loading(log_mel_cuts):
    opts = DataOptions(feature_type="log-mel")
    form = describe_features(16000, 80, "log-mel")
    assert json.loads((log_mel_cuts.parent / "toy_feats_train/features.json").read_text()) == form
    assert (form["amplitude"], form["low"], form["high"], form["floor"], form["window"]) == (
        "int16",
        125.0,
        7600.0,
        1e-8,
        400,
    )
    stored, computed = StoredFeatures(opts), FeaturesOfAudio(opts)
    for cut in read_cuts(log_mel_cuts)[:5]:
        assert cut.features.type == "log-mel" and cut.features.num_frames == num_frames(
            cut.num_samples, 16000
        )
        np.testing.assert_allclose(stored(cut), computed(cut), atol=0.01)


def test_noise_is_mixed_into_stored_features(log_mel_cuts):
    cuts = CutSet.from_file(log_mel_cuts).subset(first=4).to_eager()
    noise = CutSet.from_file(log_mel_cuts).subset(last=4).drop_supervisions().to_eager()
    opts = DataOptions(feature_type="log-mel")
    with seeded(0) as rng:
        mixed = MixNoise(noise, p=1.0, snr=(10, 10))(cuts, rng)
    for before, after in zip(cuts, mixed):
        a, b = StoredFeatures(opts)(before), StoredFeatures(opts)(after)
        assert len(b) == num_frames(after.num_samples, 16000)
        assert (b[: len(a)] > a - 0.01).all() and (b[: len(a)] > a + 0.1).any()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"feature_type": "fbank"}, "prepared with --feature-type log-mel, not fbank"),
        ({"feature_type": "log-mel", "num_mel_bins": 40}, "prepared with --num-mel-bins 80, not 40"),
        ({"feature_type": "log-mel", "sample_rate": 8000}, "prepared with --sample-rate 16000, not 8000"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_features_of_another_kind_end_the_run(log_mel_cuts, options, message, workers):
    module = AsrDataModule(DataOptions(num_workers=workers, enable_musan=False, drop_last=False, **options))
    cuts = CutSet.from_jsonl_lazy(log_mel_cuts)
    for loader in (module.train_dataloader(cuts, 1), module.test_dataloader(cuts)):
        with pytest.raises(UserError, match=message):
            next(iter(loader))


def test_the_first_kind_is_refused_where_the_second_is_wanted(feature_cuts):
    module = AsrDataModule(DataOptions(num_workers=0, feature_type="log-mel"))
    with pytest.raises(UserError, match="prepared with --feature-type fbank, not log-mel"):
        next(iter(module.valid_dataloader(CutSet.from_jsonl_lazy(feature_cuts))))


def test_unknown_features_are_refused():
    with pytest.raises(UserError, match="unknown --feature-type 'mfcc'; known: fbank, log-mel"):
        AsrDataModule(DataOptions(feature_type="mfcc"))
    with pytest.raises(UserError, match="unknown --feature-type 'mfcc'"):
        extract_features(torch.zeros(800), 16000, 80, "mfcc")
