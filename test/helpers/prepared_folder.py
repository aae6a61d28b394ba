"""A folder with a tokenizer and cuts of noise, on which the tiny training program trains."""

import numpy as np
from small_tokenizer import train_bpe


def write_prepared(folder):
    """Write ``bpe.model`` and the manifests of 12 training and 2 validation cuts to ``folder``."""
    import soundfile
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    words = ["ONE", "TWO", "THREE"]
    rng = np.random.default_rng(0)
    cuts = []
    for i in range(14):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(16000 + 800 * i), 16000)
        recording = Recording.from_file(path)
        text = " ".join(rng.choice(words, 3)) if i else ""
        supervision = SupervisionSegment(f"cut{i}", recording.id, 0.0, recording.duration, text=text)
        cuts.append(
            MonoCut(f"cut{i}", 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)
        )
    for part in ("train", "valid"):
        CutSet.from_cuts(cuts[:12] if part == "train" else cuts[12:]).to_file(
            folder / f"tiny_cuts_{part}.jsonl.gz"
        )
    lines = [" ".join(rng.choice(words, 3)) for _ in range(100)]
    (folder / "text").write_text("\n".join(lines))
    train_bpe(folder, lines, 18)
    return folder
