"""Small recordings and manifests that the tests of this folder share."""

import numpy as np
import pytest
import soundfile

from asr_core.data.compute import compute_features
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.options import DataOptions

TEXTS = ("one two", "three", "four five six", "seven eight nine zero")


def tone(seconds: float, rate: int = 16000, pitch: float = 440.0, seed: int = 0) -> np.ndarray:
    """A tone in some noise, (num_samples,) float32."""
    n = round(seconds * rate)
    noise = np.random.default_rng(seed).standard_normal(n)
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(n) / rate) + 0.01 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def audio_cuts(tmp_path_factory):
    """A manifest of 40 cuts of 0.5 to 2 s with audio: (path)."""
    folder = tmp_path_factory.mktemp("corpus")
    cuts = []
    for i in range(40):
        samples = tone(0.5 + (i * 7 % 16) / 10, pitch=200 + 20 * i, seed=i)
        path = folder / f"u{i:02d}.flac"
        soundfile.write(path, samples, 16000)
        cuts.append(make_cut(f"u{i:02d}", path, len(samples), 16000, TEXTS[i % 4], speaker=f"s{i % 3}"))
    target = folder / "manifests" / "toy_cuts_train.jsonl.gz"
    write_cuts(cuts, target)
    return target


@pytest.fixture(scope="session")
def feature_cuts(audio_cuts):
    """The same cuts with stored features."""
    target = audio_cuts.parent.parent / "fbank" / audio_cuts.name
    compute_features(audio_cuts, target, DataOptions(), nj=1, progress=False)
    return target
