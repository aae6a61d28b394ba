"""Batches whose audio is resampled and mixed on the device are those that loaders make."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, MultiCut, Recording
from lhotse.cut import MixedCut, MixTrack
from recordings import tone
from waiting import Waiting

import asr_core.data.waveforms as waveforms
from asr_core.data.cut_audio import load_samples
from asr_core.data.device_features import with_inputs_on
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.mixing import mix, plan_mix
from asr_core.data.module import AsrDataModule
from asr_core.data.noise import noise_windows
from asr_core.data.options import DataOptions
from asr_core.data.polyphase import Resampling
from asr_core.data.preparation_options import NoiseOptions
from asr_core.data.waveforms import CutAudio, Waveform, read_waveforms

CPU = torch.device("cpu")


def sound(seconds, rate, seed, level=0.2):
    """A tone in much noise: no filter is faint."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return level * (tone(seconds, rate, 200 + 40 * seed) + 0.3 * noise)


def written(path, samples, rate, subtype="PCM_16"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Cuts of several rates, and of 16 and 24 bits, with a manifest of noise, some of it at 8 kHz."""
    folder, cuts, noise = tmp_path_factory.mktemp("mixing"), [], []
    for i in range(12):
        rate, kind = ((16000, "PCM_16"), (16000, "PCM_24"), (48000, "PCM_16"), (44100, "PCM_16"))[i % 4]
        samples = sound(0.4 + i / 8, rate, i)
        path = written(folder / f"u{i}.wav", samples, rate, kind)
        cut = make_cut(f"u{i}", path, len(samples), rate, "one two")
        if i % 5 == 1:  # from the middle of a recording, with a pause at the end
            cut = cut.truncate(offset=0.123, duration=cut.duration - 0.2, preserve_id=True)
            cut.supervisions[0].start, cut.supervisions[0].duration = 0.0, cut.duration * 0.8
        cuts.append(cut)
    for i in range(3):
        path = written(
            folder / f"n{i}.wav",
            sound(1.3 + i / 3, (16000, 8000, 16000)[i], 50 + i, 0.5),
            (16000, 8000, 16000)[i],
        )
        noise.append(Recording.from_file(path))
    windows = noise_windows(noise, NoiseOptions(window=0.7, sample_rate=16000, min_duration=0.1))
    write_cuts(windows, folder / "musan_cuts.jsonl.gz")
    write_cuts(cuts, folder / "toy_cuts_train.jsonl.gz")
    return folder


def batches_of(folder, **changes):
    """The same training batches with features of the loader, and of the device."""
    opts = DataOptions(
        on_the_fly_feats=True,
        max_duration=6,
        num_buckets=2,
        num_workers=0,
        noise_manifest=str(folder / "musan_cuts.jsonl.gz"),
        drop_last=False,
        enable_spec_aug=False,
    )
    opts = dataclasses.replace(opts, **changes)
    cuts, pairs = CutSet.from_file(folder / "toy_cuts_train.jsonl.gz"), []
    for on_device in (False, True):
        module = AsrDataModule(dataclasses.replace(opts, features_on_device=on_device), seed=3)
        pairs.append(list(module.train_dataloader(cuts, epoch=1)))
    assert len(pairs[0]) == len(pairs[1]) > 1
    return pairs


def waveforms_of(batch):
    return [read_waveforms(cut, 16000) for cut in batch["supervisions"]["cut"]]


@pytest.mark.parametrize("feature_type", ["fbank", "log-mel"])
@pytest.mark.parametrize("joined", [False, True])
def test_noise_at_its_ratio_and_speeds(corpus, feature_type, joined):
    num_mixed = 0
    for expected, batch in zip(
        *batches_of(corpus, feature_type=feature_type, speed_perturb=True, concatenate_cuts=joined)
    ):
        num_mixed += sum(max(0, len(cut.waveforms) - 1) for cut in waveforms_of(batch))
        got = with_inputs_on(batch, CPU)
        assert [c.id for c in got["supervisions"]["cut"]] == [c.id for c in expected["supervisions"]["cut"]]
        error = (got["inputs"] - expected["inputs"]).abs()
        near = error <= 1e-4 * (1 + expected["inputs"].abs())
        # filters with next to no energy, as at the top of slower utterances, have rounding errors
        assert near.float().mean() > 0.999 and error.max() < 2e-3
    assert num_mixed > 10


def audio_of(cuts):
    """The audio of utterances whose waveforms were read."""
    words, plan = plan_mix(cuts)
    audio = mix(words, plan)
    assert audio.shape == (len(cuts), plan.width)
    return [row[:size] for row, size in zip(audio, plan.sizes.tolist())], audio


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Cuts of many kinds, by name: with the choice of the channel and the resamplings that are left."""
    folder = tmp_path_factory.mktemp("kinds")
    stereo = np.stack([0.2 * sound(1.0, 16000, 1), sound(1.0, 16000, 2)], axis=1)
    fast = np.stack([sound(1.0, 44100, 3), sound(1.0, 44100, 4)], axis=1)
    r16 = Recording.from_file(written(folder / "s.wav", stereo, 16000))
    r44 = Recording.from_file(written(folder / "f.wav", fast, 44100))
    slow = MonoCut("slow", 0.1, 0.7, 0, recording=r16).perturb_speed(0.9)
    plain, noise = MonoCut("p", 0.0, 1.0, 0, recording=r16), MonoCut("n", 0.2, 0.8, 1, recording=r44)
    at_16 = noise.resample(16000)
    reference = MixTrack(plain, snr=6.0, is_snr_reference=True)  # as no mixing of lhotse's makes it
    others = MixTrack(at_16, offset=0.05, snr=3.0)
    return {
        "plain": (plain, "first", 0),
        "sped": (slow, "first", 1),
        "sped from 44.1 kHz": (noise.perturb_speed(1.1), "first", 2),
        "part": (MonoCut("m", 0.333, 0.4, 1, recording=r44), "first", 1),
        "second channel": (slow, "1", 1),
        "mean of channels": (slow, "mix", 1),
        "loudest": (slow, "loudest", 0),
        "loudest as it is": (plain, "loudest", 0),
        "louder": (plain.perturb_volume(2.0), "first", 0),
        "several channels": (MultiCut("m", 0.0, 1.0, [0, 1], recording=r16).perturb_speed(0.9), "first", 0),
        "mixed": (slow.mix(at_16, snr=5), "first", 2),
        "noise longer": (slow.truncate(duration=0.2).mix(at_16, snr=5), "mix", 2),
        "padded first": (plain.pad(duration=1.5, direction="left").mix(at_16, snr=-3), "first", 1),
        "appended": (slow.append(at_16).mix(plain, snr=3, offset_other_by=0.25), "1", 2),
        "ratio of the reference": (MixedCut("m", [reference, others]), "first", 0),
        "ratio of a later reference": (MixedCut("m", [others, reference]), "first", 0),
        "mixed of odd rates": (slow.mix(at_16, snr=5).resample(12345), "first", 0),
        "mixed channels": (MultiCut("m", 0.0, 1.0, [0, 1], recording=r16).mix(at_16, snr=3), "first", 0),
    }


KINDS = """plain,sped,sped from 44.1 kHz,part,second channel,mean of channels,loudest,loudest as it is,louder,
several channels,mixed,noise longer,padded first,appended,ratio of the reference,
ratio of a later reference,mixed of odd rates,mixed channels"""


@pytest.mark.parametrize("name", [name.strip() for name in KINDS.split(",")])
def test_waveforms_of_a_cut_give_its_samples(kinds, name):
    cut, choice, num_steps = kinds[name]
    read = read_waveforms(cut, 16000, choice)
    assert sum(len(w.steps) for w in read.waveforms) == num_steps
    at_rate = cut if cut.sampling_rate == 16000 else cut.resample(16000)
    expected = load_samples(at_rate, choice)
    (got,), _ = audio_of([read])
    np.testing.assert_allclose(got.numpy(), expected, atol=2e-6)
    if not num_steps and len(read.waveforms) == 1:
        assert np.array_equal(got.numpy(), expected)


def test_a_cut_without_a_recording():
    with pytest.raises(ValueError, match="^no audio$"):  # as of loaders that compute features
        read_waveforms(MonoCut("none", 0.0, 1.0, 0), 16000)


def test_an_utterance_alone_is_as_in_a_batch(kinds):
    read = [read_waveforms(cut, 16000, choice) for cut, choice, _ in kinds.values()]
    together, audio = audio_of(read)
    assert len({tuple(w.steps) for cut in read for w in cut.waveforms}) > 3
    for row, got, cut in zip(audio, together, read):
        torch.testing.assert_close(got, audio_of([cut])[0][0], rtol=1e-5, atol=1e-6)
        assert not row[len(got) :].any()


def test_ratios_are_of_energies():
    draws = np.random.default_rng(1)
    speech, noise, second = (draws.normal(scale=0.1, size=n).astype(np.float32) for n in (900, 500, 700))
    cut = CutAudio(
        [
            Waveform(noise, (), 500, 500, 100, 12.0),
            Waveform(speech, (), 900, 900),
            Waveform(second, (), 700, 700, 600, -3.0),
            Waveform(np.zeros(40, np.float32), (), 40, 40, 0, 7.0),  # silence has no level
        ],
        reference=1,
        made=1300,
        size=1200,
    )
    (got,), _ = audio_of([cut])
    expected = np.zeros(1300)
    for samples, start, snr in ((speech, 0, 0.0), (noise, 100, 12.0), (second, 600, -3.0)):
        level = np.sqrt((speech.astype(float) ** 2).mean() / (samples.astype(float) ** 2).mean())
        expected[start : start + len(samples)] += 10 ** (-snr / 20) * level * samples
    np.testing.assert_allclose(got.numpy(), expected[:1200], atol=1e-6)


def test_no_utterance():
    assert audio_of([])[1].shape == (0, 0)


def test_missing_ends_are_mirrored():
    samples = np.arange(1, 11, dtype=np.int16)
    short = CutAudio([Waveform(samples, (), 10, 10)], 0, 10, 13)
    step = Resampling(16000, 8000)
    halved = Waveform(np.tile(samples, 40), (step,), 200, 202)
    both = CutAudio([halved], 0, 202, 202)
    (first, second), _ = audio_of([short, both])
    np.testing.assert_array_equal(first.numpy() * 32768, [*range(1, 11), 9, 8, 7])
    made = step.on_cpu(torch.from_numpy(halved.samples / np.float32(32768)))
    expected = np.pad(made.numpy(), (0, 2), mode="reflect")
    np.testing.assert_allclose(second.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize(
    "samples, words",
    [
        ([0.0, -1.0, 32767 / 32768, 1 / 32768], True),
        ([0.0, 1.0], False),  # one step above the range
        ([0.5, 0.5 + 1 / 65536], False),
        ([0.0] * 1000 + [1e-9], False),
    ],
)
def test_sixteen_bits_where_they_say_it_all(samples, words):
    samples = np.array(samples, dtype=np.float32)
    compact = waveforms._compact(samples)
    assert compact.dtype == (np.int16 if words else np.float32)
    assert np.array_equal(compact / np.float32(32768) if words else compact, samples)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        waveforms._compact(np.array([0.0, bad], dtype=np.float32))


def test_files_of_16_and_24_bits_in_one_batch(corpus):
    seen = set()
    for batch in batches_of(corpus, enable_musan=False, noise_manifest="")[1]:
        plan, words = batch["plan"].mix, batch["inputs"]
        kinds = [w.samples.dtype.itemsize for cut in waveforms_of(batch) for w in cut.waveforms]
        sizes = [len(w.samples) for cut in waveforms_of(batch) for w in cut.waveforms]
        assert len(words) == sum(s for s, kind in zip(sizes, kinds) if kind == 2)
        assert len(plan.floats) == sum(s for s, kind in zip(sizes, kinds) if kind == 4)
        seen |= set(kinds)
    assert seen == {2, 4}


def test_a_cut_that_cannot_be_read_is_dropped(corpus, tmp_path):
    cuts = list(CutSet.from_file(corpus / "toy_cuts_train.jsonl.gz"))[:4]
    path = written(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, "FLOAT")
    cuts.append(make_cut("nan", path, 16000, 16000, "one"))
    opts = DataOptions(on_the_fly_feats=True, features_on_device=True, num_workers=0, max_unreadable=1)
    module = AsrDataModule(opts, seed=3)
    batches = list(module.valid_dataloader(CutSet.from_cuts(cuts)))
    assert sum(len(batch["plan"].num_frames) for batch in batches) == 4
    assert [ids for reason, ids in module.dropped.ids.items() if "not finite" in reason] == [["nan"]]


@pytest.mark.parametrize("spec_aug", ["lhotse", "adaptive"])
def test_the_host_waits_for_nothing(corpus, spec_aug):
    batches = batches_of(corpus, speed_perturb=True, enable_spec_aug=True, spec_aug=spec_aug)[1]
    for batch in batches:
        with_inputs_on(batch, CPU)  # filters and windows are made once
    with Waiting() as waiting:
        for batch in batches:
            with_inputs_on(batch, CPU)
    assert not waiting.found and waiting.calls > 100
