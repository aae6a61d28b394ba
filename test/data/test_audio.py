"""Audio files that are written in unusual ways, and parts of them as lhotse reads them."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording
from manifests import read_cuts
from recordings import tone

from asr_core.bin import prepare_noise, prepare_tsv
from asr_core.data.audio import duration_of, load_audio, read_audio, read_span
from asr_core.data.compute import compute_features
from asr_core.data.cut_audio import load_samples
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.open_cuts import open_shar
from asr_core.data.options import FeatureOptions
from asr_core.data.shar import write_shar

RATE = 8000


def write_gsm(path, seconds=2.0):
    """A WAV file in which libsndfile cannot seek."""
    soundfile.write(path, tone(seconds, RATE), RATE, format="WAV", subtype="GSM610")


def with_size_of_data(path, size):
    """Write another size of the data into a WAV file, as recorders do that were cut off."""
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)


def test_files_that_cannot_be_searched_are_read_from_the_start(tmp_path):
    write_gsm(tmp_path / "a.wav")
    with soundfile.SoundFile(tmp_path / "a.wav") as f:
        assert not f.seekable()  # else this test is about nothing
        whole = f.read(frames=2 * RATE, dtype="float32")
    samples, rate = read_audio(tmp_path / "a.wav")
    assert rate == RATE and np.array_equal(samples[0, : len(whole)], whole)
    assert len(load_audio(tmp_path / "a.wav", 16000)) == 2 * samples.shape[1]
    assert duration_of(tmp_path / "a.wav") == samples.shape[1] / RATE
    part, _ = read_span(tmp_path / "a.wav", 0.5, 0.25)
    assert np.array_equal(part[0], whole[RATE // 2 : RATE * 3 // 4])


def test_lhotse_reads_them_too(tmp_path):
    write_gsm(tmp_path / "a.wav")
    recording = Recording.from_file(tmp_path / "a.wav")
    whole = recording.load_audio()
    cut = MonoCut("a", 0.5, 1.0, 0, recording=recording)
    assert whole.shape == (1, recording.num_samples)
    assert np.array_equal(load_samples(cut), whole[0, RATE // 2 : RATE * 3 // 2])


@pytest.mark.parametrize("module", ["dataset", "manifest", "shar", "manifest_checks", "compute"])
def test_whoever_reads_cuts_has_taught_lhotse(module):
    code = f"""
import asr_core.data.{module}
from lhotse.audio.backend import get_current_audio_backend
assert "PatientBackend" in [type(b).__name__ for b in get_current_audio_backend().backends]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_wav_without_a_size_is_read_to_its_end(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone(0.5), tone(0.5, pitch=300)], 1), 16000)
    whole, _ = read_audio(path)
    with_size_of_data(path, 0)
    assert np.array_equal(read_audio(path).channels, whole)
    assert np.array_equal(Recording.from_file(path).load_audio(), whole)


def test_wav_that_is_truly_empty_is_not_filled_with_other_chunks(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0, np.float32), 16000)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(Exception, match="no audio in it"):
        read_audio(path)


def test_preparation_keeps_them_with_all_others(tmp_path):
    write_gsm(tmp_path / "gsm.wav")
    soundfile.write(tmp_path / "good.wav", tone(1.0), 16000)
    (tmp_path / "list.tsv").write_text("gsm.wav\tone two\ngood.wav\tthree\n")
    out = tmp_path / "manifests"
    prepare_tsv.main(["--train", str(tmp_path / "list.tsv"), "--output-dir", str(out)])
    source, target = out / "custom_cuts_train.jsonl.gz", tmp_path / "fbank/custom_cuts_train.jsonl.gz"
    done = compute_features(source, target, FeatureOptions(), progress=False)
    assert done.cuts == 2 and not done.dropped
    assert [round(len(cut.load_features()) / 100) for cut in read_cuts(target)] == [2, 1]


def test_shards_keep_them_without_what_nobody_can_read(tmp_path, caplog):
    write_gsm(tmp_path / "gsm.wav")
    soundfile.write(tmp_path / "cut.wav", tone(1.0), 16000)
    cuts = [
        make_cut("gsm", tmp_path / "gsm.wav", 2 * RATE, RATE, "a"),
        make_cut("cut", tmp_path / "cut.wav", 16000, 16000, "b"),
    ]
    write_cuts(cuts, tmp_path / "cuts.jsonl.gz")
    (tmp_path / "cut.wav").write_bytes(b"RIFF")
    write_shar(tmp_path / "cuts.jsonl.gz", tmp_path / "shar", {"recording": "flac"})
    (cut,) = open_shar(tmp_path / "shar")
    assert cut.id == "gsm" and cut.load_audio().shape == (1, 2 * RATE)
    assert "left out cut: unreadable" in caplog.text


def test_noise_preparation_keeps_them_and_names_what_nobody_can_read(tmp_path, capsys):
    folder = tmp_path / "noise"
    folder.mkdir()
    write_gsm(folder / "gsm.wav", 6.0)
    soundfile.write(folder / "cut.wav", tone(6.0), 16000)
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:50000])
    options = ["--output", str(tmp_path / "m.jsonl.gz"), "--max-unreadable", "0.5"]
    prepare_noise.main(["--noise-dir", str(folder), *options])
    (cut,) = read_cuts(tmp_path / "m.jsonl.gz")
    assert cut.id == "gsm-0" and len(load_samples(cut)) == cut.num_samples
    assert "cut.wav: cut short" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are always Unicode")
def test_names_that_are_not_utf8(tmp_path, capsys):
    soundfile.write(tmp_path / "plain.wav", tone(1.0), 16000)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    os.rename(tmp_path / "plain.wav", odd)
    soundfile.write(tmp_path / "plain.wav", tone(1.0), 16000)
    assert len(load_audio(odd)) == 16000 and duration_of(odd) == 1.0
    output = tmp_path / "noise.jsonl.gz"
    prepare_noise.main(["--noise-dir", str(tmp_path), "--output", str(output)])
    assert [cut.recording_id for cut in read_cuts(output)] == ["plain"]
    assert "which is not UTF-8" in capsys.readouterr().err
