"""Recordings that are made up, always the same."""

from pathlib import Path

import numpy as np


def write_corpus(folder, train=14, valid=4):
    """Recordings of tones, one for each letter, and manifests of their cuts; always the same."""
    import soundfile
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    audio, manifests = Path(folder) / "audio", Path(folder) / "manifests"
    for place in (audio, manifests):
        place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = ["ABC", "CAB", "BED", "DEAF", "FACE", "EBB"]
    for part, count in (("train", train), ("valid", valid)):
        cuts = []
        for i in range(count):
            text = " ".join(words[j] for j in rng.integers(0, len(words), 2))
            pitches = np.repeat([300 + 350 * " ABCDEF".index(letter) for letter in text], 1600 + 80 * i)
            samples = 0.2 * np.sin(2 * np.pi * np.cumsum(pitches) / 16000)
            samples = samples + 0.01 * rng.standard_normal(len(samples))
            path = audio / f"{part}-{i}.wav"
            soundfile.write(path, samples, 16000, subtype="PCM_16")
            recording = Recording.from_file(path, recording_id=path.stem)
            spoken = SupervisionSegment(path.stem, path.stem, 0.0, recording.duration, text=text)
            cuts.append(MonoCut(path.stem, 0.0, recording.duration, 0, [spoken], recording=recording))
        CutSet.from_cuts(cuts).to_file(manifests / f"tones_cuts_{part}.jsonl.gz")
