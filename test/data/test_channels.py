"""Recordings with several channels: the choice of one, wherever audio is read."""

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, MultiCut, Recording
from manifests import read_cuts
from recordings import tone

import asr_core.data.cut_audio as cut_audio
from asr_core.bin import prepare_noise, prepare_tsv
from asr_core.bin.transcribe import add_arguments
from asr_core.data.audio import load_audio
from asr_core.data.augment import MixNoise
from asr_core.data.channels import pick_channel, silence_note
from asr_core.data.compute import compute_features
from asr_core.data.cut_audio import load_samples
from asr_core.data.dataset import make_loader, seeded
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.data.options import DataOptions, FeatureOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser

LEFT, RIGHT = np.zeros(16000, np.float32), tone(1.0)
WANTED = {"first": LEFT, "0": LEFT, "1": RIGHT, "loudest": RIGHT, "mix": (LEFT + RIGHT) / 2}


@pytest.fixture
def stereo(tmp_path):
    """Silence in the first channel, sound in the second."""
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([LEFT, RIGHT], 1), 16000, subtype="FLOAT")
    return path


@pytest.fixture
def new_process(monkeypatch):
    """One that has warned of nothing."""
    monkeypatch.setattr(cut_audio, "_warned", set())


@pytest.mark.parametrize("choice", WANTED)
def test_files_and_cuts(stereo, choice):
    np.testing.assert_allclose(load_audio(stereo, 16000, choice).numpy(), WANTED[choice], atol=1e-7)
    recording = Recording.from_file(stereo)
    for cut in (
        MonoCut("a", 0, 1.0, 0, recording=recording),
        MultiCut("a", 0, 1.0, [0, 1], recording=recording),
    ):
        np.testing.assert_allclose(load_samples(cut, choice), WANTED[choice], atol=1e-7)
    part = MonoCut("a", 0.25, 0.5, 0, recording=recording)
    np.testing.assert_allclose(load_samples(part, choice), WANTED[choice][4000:12000], atol=1e-7)


def test_first_is_the_channel_that_a_manifest_names(stereo):
    cut = MonoCut("a", 0, 1.0, 1, recording=Recording.from_file(stereo))
    assert np.array_equal(load_samples(cut), RIGHT)


@pytest.mark.parametrize("choice", WANTED)
def test_a_list_of_recordings(stereo, choice, tmp_path):
    soundfile.write(tmp_path / "mono.wav", RIGHT, 16000, subtype="FLOAT")
    (tmp_path / "list.tsv").write_text("stereo.wav\tone\nmono.wav\ttwo\n")
    out = ["--output-dir", str(tmp_path / "m"), "--channel", choice, "--max-unreadable", "0.5"]
    prepare_tsv.main(["--train", str(tmp_path / "list.tsv"), *out])
    first, *others = read_cuts(tmp_path / "m/custom_cuts_train.jsonl.gz")
    np.testing.assert_allclose(load_samples(first), WANTED[choice], atol=1e-7)  # no option is needed again
    assert len(others) == (choice != "1")  # a recording without this channel is left out
    assert all(np.array_equal(load_samples(cut), RIGHT) for cut in others)


def test_stored_and_computed_features(stereo, tmp_path):
    write_cuts([make_cut("a", stereo, 16000, 16000, "one", channels=2)], tmp_path / "a.jsonl.gz")
    found = {}
    for choice in WANTED:
        target = tmp_path / choice / "cuts.jsonl.gz"
        compute_features(tmp_path / "a.jsonl.gz", target, FeatureOptions(), progress=False, channel=choice)
        (cut,) = read_cuts(target)
        load = make_loader(DataOptions(on_the_fly_feats=True, channel=choice))
        found[choice] = load(cut)
        np.testing.assert_allclose(cut.load_features(), found[choice], atol=0.01)
    assert np.array_equal(found["1"], found["loudest"]) and np.array_equal(found["0"], found["first"])
    assert found["first"].max() < found["mix"].max() < found["1"].max()
    with pytest.raises(UserError, match="--channel 1 chooses among channels of audio"):
        AsrDataModule(DataOptions(channel="1"))


@pytest.mark.parametrize("choice", ["1", "mix", "loudest"])
def test_speech_with_noise_of_one_channel(stereo, choice, tmp_path):
    (tmp_path / "n").mkdir()
    soundfile.write(tmp_path / "n/noise.wav", tone(6.0, pitch=90), 16000)
    prepare_noise.main(["--noise-dir", str(tmp_path / "n"), "--output", str(tmp_path / "n.jsonl.gz")])
    noise = CutSet.from_cuts(read_cuts(tmp_path / "n.jsonl.gz"))
    cut = make_cut("a", stereo, 16000, 16000, "one", channels=2)
    with seeded(1) as rng:
        (noisy,) = MixNoise(noise, p=1.0)(CutSet.from_cuts([cut]), rng)
    mixed = load_samples(noisy, choice)
    assert len(mixed) == 16000
    assert np.corrcoef(mixed, WANTED[choice])[0, 1] > 0.9 and not np.allclose(
        mixed, WANTED[choice], atol=1e-3
    )


@pytest.mark.parametrize("choice", WANTED)
def test_noise_of_several_channels(stereo, choice, tmp_path):
    out = ["--output", str(tmp_path / "n.jsonl.gz"), "--channel", choice]
    prepare_noise.main(["--noise-dir", str(stereo.parent), *out])
    (cut,) = read_cuts(tmp_path / "n.jsonl.gz")
    np.testing.assert_allclose(load_samples(cut), WANTED[choice], atol=1e-7)


def test_one_line_if_the_channel_is_silent_and_another_is_not(stereo, tmp_path, caplog, capsys, new_process):
    load_audio(stereo)
    assert "stereo.wav: its channel in use is silent, channel 1 is not" in caplog.text
    caplog.clear()
    for _ in range(3):
        load_samples(make_cut("a", stereo, 16000, 16000, "", channels=2))
    assert caplog.text.count("silent") == 1
    caplog.clear()
    load_audio(stereo, 16000, "loudest")
    load_samples(make_cut("a", stereo, 16000, 16000, "", channels=2, channel=1))
    assert not caplog.records
    (tmp_path / "list.tsv").write_text("stereo.wav\tone\n")
    prepare_tsv.main(["--test", str(tmp_path / "list.tsv"), "--output-dir", str(tmp_path)])
    err = capsys.readouterr().err
    assert "list.tsv:1" in err and "channel 1 is not" in err


def test_what_counts_as_silent():
    quiet, hiss = 0.003 * RIGHT, 1e-4 * np.random.default_rng(0).standard_normal(16000)
    assert "channel 1" in silence_note(np.stack([LEFT, quiet]), LEFT)
    assert "channel 2" in silence_note(np.stack([hiss, hiss, RIGHT]), hiss)
    for pair in ([RIGHT, LEFT], [LEFT, LEFT], [hiss, hiss], [quiet, RIGHT * 0.01]):
        assert silence_note(np.stack(pair), pair[0]) == ""
    assert silence_note(LEFT[None], LEFT) == ""


def test_wrong_choices(stereo, capsys):
    with pytest.raises(UserError, match=r"stereo.wav: no channel 2; it has 2, counted from 0"):
        load_audio(stereo, 16000, "2")
    with pytest.raises(ValueError, match="no channel 1"):
        pick_channel(LEFT[None], "1")
    parser = Parser("")
    add_arguments(parser)
    for text in ("-1", "left", "", "1.5", "99999999999999999999"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--channel", text, "x.wav"])
        assert "expected first, mix, loudest or a number" in capsys.readouterr().err
