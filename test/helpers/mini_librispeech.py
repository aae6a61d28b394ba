#!/usr/bin/env python3
"""Lay out a miniature LibriSpeech and a miniature MUSAN like the real corpora.

The speech is synthesised by eSpeak NG (package espeakng-loader), or taken from --audio-dir.
"""

import math
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import soundfile

from asr_core.bin.recipe import load_file

SAMPLE_RATE = 16000
FULL_PARTS = (
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean",
    "dev-other",
    "test-clean",
    "test-other",
)
MINI_PARTS = ("train-clean-5", "dev-clean-2")
SPEAKERS = 2  # of each part
VOICES = ("en-us+m1", "en-gb-x-rp+f1", "en-us+f3", "en+m4", "en-gb-scotland+m2", "en-us-nyc+f4")
WORDS = (
    "THE A AND OF TO IN HE SHE IT THEY WAS HAD WENT SAW TOOK CAME GAVE FOUND HEARD KEPT LOST OLD YOUNG "
    "GREAT LITTLE WHITE BLACK RED COLD WARM DARK BRIGHT RIVER MOUNTAIN GARDEN WINDOW LETTER MORNING "
    "EVENING SUMMER WINTER HORSE SHIP KING QUEEN SOLDIER DOCTOR MOTHER BROTHER CAPTAIN STRANGER QUICKLY "
    "SLOWLY NEVER ALWAYS TOGETHER BEFORE AFTER UNDER BEHIND BETWEEN STRENGTH THOUGHT VOICE JUDGE "
    "PLEASURE MEASURE EXPLAIN FOX BOX ZEAL LAZY"
).split()

Utterance = Tuple[np.ndarray, str]  # samples (num_samples,) float32 at SAMPLE_RATE, and words


def synthesised(seed: int, voice: str) -> Iterator[Utterance]:
    """Yield sentences of 4 to 9 words by one voice, endlessly."""
    from scipy.signal import resample_poly

    rng = np.random.default_rng(seed)
    synth = load_file("../../egs/digits/ASR/local/espeak.py", beside=__file__).Espeak()
    common = math.gcd(SAMPLE_RATE, synth.sample_rate)
    while True:
        text = " ".join(WORDS[i] for i in rng.integers(len(WORDS), size=rng.integers(4, 10)))
        speech = synth.say(text.lower(), voice, int(rng.integers(130, 180)), 50, 50, int(rng.integers(0, 8)))
        samples = resample_poly(speech, SAMPLE_RATE // common, synth.sample_rate // common)
        yield (samples + 0.001 * rng.standard_normal(len(samples))).astype(np.float32), text


def recorded(folder: Path, seed: int) -> Iterator[Utterance]:
    """Yield the recordings ``x.wav`` or ``x.flac`` of a folder, with their words in ``x.txt``."""
    from scipy.signal import resample_poly

    paths = sorted(
        p for p in folder.rglob("*") if p.suffix in (".wav", ".flac") and p.with_suffix(".txt").is_file()
    )
    if not paths:
        raise SystemExit(f"error: no recordings with .txt beside them in {folder}")
    index = seed
    while True:
        path = paths[index % len(paths)]
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        common = math.gcd(SAMPLE_RATE, rate)
        yield (
            resample_poly(samples[:, 0], SAMPLE_RATE // common, rate // common),
            path.with_suffix(".txt").read_text().strip().upper(),
        )
        index += 1


def make_mini_librispeech(
    root: Path, counts: Mapping[str, int], audio_dir: Optional[Path] = None
) -> Dict[str, List[str]]:
    """Write ``root/LibriSpeech``; returns the transcripts of each part.

    Args:
      root: where to write.
      counts: utterances of each part, e.g. ``{"train-clean-100": 20, "dev-clean": 4}``.
      audio_dir: recordings instead of synthesis, see :func:`recorded`.
    """
    corpus = root / "LibriSpeech"
    corpus.mkdir(parents=True, exist_ok=True)
    speakers = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    chapters = [";ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE | PROJECT TITLE"]
    texts: Dict[str, List[str]] = {}
    for p, (part, count) in enumerate(counts.items()):
        texts[part] = []
        for s in range(SPEAKERS):
            number = 100 + SPEAKERS * p + s
            share = count // SPEAKERS + (s < count % SPEAKERS)
            voice = VOICES[number % len(VOICES)]
            source = recorded(audio_dir, 7 * number) if audio_dir else synthesised(number, voice)
            seconds = _write_chapter(corpus / part, number, 1000 + number, source, share, texts[part])
            speakers.append(f"{number:<5}| {'FM'[s]} | {part:<17}| {seconds / 60:<6.2f}| Voice {voice}")
            chapters.append(
                f"{1000 + number} | {number} | {seconds / 60:.2f} | {part:<17}| 0 | 0 | Chapter {number} "
                "| Miniature"
            )
    (corpus / "SPEAKERS.TXT").write_text("\n".join(speakers) + "\n")
    (corpus / "CHAPTERS.TXT").write_text("\n".join(chapters) + "\n")
    return texts


def _write_chapter(
    part: Path, speaker: int, chapter: int, source: Iterator[Utterance], count: int, texts: List[str]
) -> float:
    """Write ``count`` utterances of one speaker; returns their seconds."""
    folder = part / str(speaker) / str(chapter)
    folder.mkdir(parents=True, exist_ok=True)
    lines, seconds = [], 0.0
    for i in range(count):
        samples, text = next(source)
        name = f"{speaker}-{chapter}-{i:04d}"
        soundfile.write(folder / f"{name}.flac", np.clip(samples, -1, 1), SAMPLE_RATE, subtype="PCM_16")
        lines.append(f"{name} {text}\n")
        texts.append(text)
        seconds += len(samples) / SAMPLE_RATE
    (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(lines))
    return seconds


def make_mini_musan(root: Path, seconds: Sequence[float] = (13.0, 24.0, 4.0)) -> None:
    """Write ``root/musan``: music, noise and speech, one recording of each length in each."""
    for kind, source in (("music", "fma"), ("noise", "free-sound"), ("speech", "librivox")):
        folder = root / "musan" / kind / source
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{kind}-{source}-{i:04d}" for i in range(len(seconds))]
        for i, (name, length) in enumerate(zip(names, seconds)):
            rng = np.random.default_rng([i, len(kind)])
            time = np.arange(int(length * SAMPLE_RATE)) / SAMPLE_RATE
            tones = sum(np.sin(2 * np.pi * f * time) for f in rng.uniform(80, 900, 3))
            hiss = np.convolve(rng.standard_normal(len(time)), np.ones(i + 1) / (i + 1), "same")
            soundfile.write(
                folder / f"{name}.wav",
                (0.05 * (hiss if kind == "noise" else tones)).astype(np.float32),
                SAMPLE_RATE,
            )
        if kind == "music":
            (folder / "ANNOTATIONS").write_text("".join(f"{name} classical N nobody\n" for name in names))


def main(argv: Any = None) -> None:
    from asr_core.utils.options import Parser, str2bool

    parser = Parser("Lay out a miniature LibriSpeech and a miniature MUSAN.")
    parser.add_argument(
        "root", type=Path, help="folder for LibriSpeech/ and musan/, to be given to prepare.sh as --dl-dir"
    )
    parser.add_argument("--mini-libri", type=str2bool, default=False, help="the parts of mini LibriSpeech")
    parser.add_argument("--num-train", type=int, default=40, help="utterances of each training part")
    parser.add_argument("--num-test", type=int, default=8, help="utterances of each other part")
    parser.add_argument(
        "--audio-dir",
        type=Path,
        help="folder of recordings x.wav with their words in x.txt, instead of synthesis",
    )
    args = parser.parse_args(argv)
    parts = MINI_PARTS if args.mini_libri else FULL_PARTS
    counts = {part: args.num_train if part.startswith("train") else args.num_test for part in parts}
    make_mini_librispeech(args.root, counts, args.audio_dir)
    make_mini_musan(args.root)


if __name__ == "__main__":
    main()
