"""A folder with a tokenizer and cuts of noise, on which the tiny training program trains."""

import numpy as np


def write_prepared(folder):
    """Write ``bpe.model`` and the manifests of 12 training and 2 validation cuts to ``folder``."""
    import sentencepiece
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
    text = folder / "text"
    text.write_text("\n".join(" ".join(rng.choice(words, 3)) for _ in range(100)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "bpe"),
        vocab_size=18,
        model_type="bpe",
        unk_id=2,
        bos_id=-1,
        eos_id=-1,
        user_defined_symbols=["<blk>", "<sos/eos>"],
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return folder
