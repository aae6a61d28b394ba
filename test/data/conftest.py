"""Small recordings and manifests that the tests of this folder share."""

import random

import pytest
import soundfile
from recordings import TEXTS, tone

from asr_core.data.compute import compute_features
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.options import DataOptions


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
    """The cuts with stored features."""
    target = audio_cuts.parent.parent / "fbank" / audio_cuts.name
    compute_features(audio_cuts, target, DataOptions(), nj=1, progress=False)
    return target


@pytest.fixture(scope="session")
def corpora(tmp_path_factory):
    """Three manifests of cuts without data: a with 30, b with 60, c with 10."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, number in (("a", 30), ("b", 60), ("c", 10)):
        rng = random.Random(number)
        cuts = [
            make_cut(f"{name}{i:02d}", "x.flac", int(16000 * rng.uniform(1, 5)), 16000, "x")
            for i in range(number)
        ]
        write_cuts(cuts, folder / f"{name}.jsonl.gz")
    return folder
