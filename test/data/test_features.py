"""Features against a plain numpy version of Kaldi's formula; audio files of many kinds."""

import struct

import numpy as np
import pytest
import soundfile
import torch
from recordings import tone

from asr_core.data.audio import load_audio
from asr_core.data.features import LOG_EPS, extract_features
from asr_core.utils.errors import UserError


def kaldi_fbank(x: np.ndarray, rate: int = 16000, num_mel: int = 80) -> np.ndarray:
    """Log-mel energies as Kaldi computes them, in float64: frames centred on their shift, edges
    mirrored, DC removed, pre-emphasis 0.97, povey window, power spectrum, triangles on the mel
    scale 1127 ln(1 + f/700) from 20 Hz to 400 Hz below Nyquist, floor 1e-10 (lhotse's).
    """
    length, shift, fft = rate // 40, rate // 100, 512
    frames = (len(x) + shift // 2) // shift
    mirrored = np.concatenate([x[::-1], x, x[::-1]]).astype(np.float64)
    first = len(x) + shift // 2 - length // 2
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85
    mel = lambda f: 1127.0 * np.log(1.0 + np.asarray(f) / 700.0)  # noqa: E731
    edges = np.linspace(mel(20.0), mel(rate / 2 - 400.0), num_mel + 2)
    at = mel(np.arange(fft // 2) * rate / fft)[:, None]
    up, down = (at - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - at) / (edges[2:] - edges[1:-1])
    bank = np.maximum(0.0, np.minimum(up, down))
    out = np.empty((frames, num_mel))
    for t in range(frames):
        frame = mirrored[first + t * shift :][:length]
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, fft)) ** 2
        out[t] = np.log(np.maximum(power[: fft // 2] @ bank, 1e-10))
    return out


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.234])
def test_features_follow_kaldis_formula(seconds):
    x = tone(seconds)
    got = extract_features(torch.from_numpy(x), 16000)
    want = kaldi_fbank(x)
    assert got.shape == want.shape and got.dtype == torch.float32
    rounding = 1e-7 * np.exp(want).max()  # of float32, relative to the loudest filter
    assert np.all(np.abs(np.exp(got.numpy()) - np.exp(want)) < 1e-3 * np.exp(want) + rounding)
    assert np.mean(np.abs(got.numpy() - want)) < 5e-4


def test_silence_gives_the_padding_value():
    got = extract_features(torch.zeros(16000), 16000)
    assert got.min() >= LOG_EPS - 1e-3 and got.max() < -15


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_load_audio_reads_every_format_at_any_rate(tmp_path, kind, rate):
    left, right = tone(1.0, rate, 440), tone(1.0, rate, 1500, seed=1)
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, np.stack([left, right], axis=1), rate)
    got = load_audio(path, 16000)
    assert abs(len(got) - 16000) < 1600
    spectrum = np.abs(np.fft.rfft(got.numpy()[2000:14000]))
    assert abs(np.argmax(spectrum) * 16000 / 12000 - 440) < 5  # the first channel, at the right speed
    assert 0.25 < got[2000:14000].abs().max() < 0.45


def test_opus(tmp_path):
    path = tmp_path / "a.opus"
    soundfile.write(path, tone(1.0, 48000), 48000, format="OGG", subtype="OPUS")
    assert abs(len(load_audio(path, 16000)) - 16000) < 400


def broken_files(folder):
    """(file, words of the message) of each kind of damage."""
    whole = folder / "whole.wav"
    soundfile.write(whole, tone(1.0), 16000)
    data = whole.read_bytes()
    flac = folder / "whole.flac"
    soundfile.write(flac, tone(1.0), 16000)
    nan = folder / "nan.wav"
    soundfile.write(nan, np.full(1000, np.nan, np.float32), 16000, subtype="FLOAT")
    none = folder / "none.wav"
    soundfile.write(none, np.zeros(0, np.float32), 16000)
    cases = {
        "cut.wav": data[:20000],
        "empty.wav": b"",
        "text.wav": b"hello",
        "cut.flac": flac.read_bytes()[:5000],
    }
    for name, content in cases.items():
        (folder / name).write_bytes(content)
    return {
        "cut.wav": "cut short",
        "empty.wav": "empty file",
        "text.wav": "not readable",
        "cut.flac": "cut short|not readable",
        "missing.wav": "no such audio file",
        "nan.wav": "not finite",
        "none.wav": "no audio",
    }


def test_broken_audio_is_a_users_mistake_that_names_the_file(tmp_path):
    for name, words in broken_files(tmp_path).items():
        with pytest.raises(UserError, match=words) as caught:
            load_audio(tmp_path / name)
        assert name in str(caught.value)


def test_wav_written_to_a_pipe_has_no_length_and_is_read(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5), 16000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(load_audio(path)) == 8000
