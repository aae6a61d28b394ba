#!/usr/bin/env python3
"""Synthesise connected digits with many voices, speeds, pitches, pauses, rooms and noises.

Some training cuts have no words, so that a model learns to write nothing for noise and silence.
Training and test voices are disjoint. The same seed gives the same audio, byte for byte, for any
number of processes.
"""

import logging
import math
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
import soundfile
from espeak import Espeak
from lhotse.cut import MonoCut
from names import test_names, with_names
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import fftconvolve, resample_poly
from sounds import draw_sound
from strings import WORDS, draw_length, random_digits
from tqdm import tqdm

from asr_core.cli.program import run_program
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.parallel import process_map
from asr_core.utils.log import setup_logger
from asr_core.utils.options import Parser, add_options, from_params, option

SAMPLE_RATE = 16000
# "en" is British English.
ACCENTS = "en-us en en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-029 en-us-nyc".split()
# The natural variants of eSpeak NG; similar ones (edward, edward2) are on the same side.
TRAIN_VARIANTS = (
    "m1 m2 m4 m5 m6 m8 f1 f3 f4 Alex Alicia Andy Annie Denis Diogo Gene Henrique Hugo Jacky Marco "
    "Mario Mike anika antonio aunty benjamin boris caleb david ed edward edward2 grandma gustave ian "
    "john linda marcelo max michel miguel norbert pablo pedro quincy robert sandro shelby steph steph2 "
    "steph3 travis zac"
).split()
TEST_VARIANTS = "m3 m7 f2 f5 Andrea Lee Michael adam belinda paul victor".split()
PARTS = ("train", "valid", "test")
# Parts without words; the first is appended to the training part, the second is a test set.
WORDLESS = ("train-noise", "noise")
CHUNK = 50  # utterances per instance of the synthesiser; the audio depends on it


@dataclass
class SynthOptions:
    """Synthesis: numbers of utterances, output."""

    audio_dir: str = option("data/synth/audio", "folder for the FLAC files")
    manifest_dir: str = option("data/manifests", "folder for synth_cuts_{train,valid,test,noise}.jsonl.gz")
    num_train: int = option(3000, "training utterances")
    num_valid: int = option(150, "validation utterances: training voices, other strings")
    num_test: int = option(300, "test utterances: other voices, other strings")
    num_train_noise: int = option(90, "training cuts without words besides: noise, silence, tones")
    num_noise: int = option(60, "test cuts without words, a set of their own")
    names: bool = option(
        False,
        "invented names among the digits; those of the test utterances, which training never "
        "hears, are listed in names.txt beside the manifests",
    )
    seed: int = option(20240101, "random seed")
    nj: int = option(2, "number of processes")


def draw_words(part: str, rng: np.random.Generator) -> str:
    """Draw three to seven digits in words; no string occurs in two parts."""
    while True:
        text = " ".join(WORDS[i] for i in random_digits(rng, draw_length(rng)))
        side = zlib.crc32(text.encode()) % 10
        if part == {8: "valid", 9: "test"}.get(side, "train"):
            return text


def add_room(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add reverberation of a small room: 50 to 250 ms of noise, 12 to 24 dB below the speech.

    The factor 6.9 makes the noise decay by 60 dB (ln 1000) over its length.
    """
    length = int(SAMPLE_RATE * rng.uniform(0.05, 0.25))
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= 10 ** (-rng.uniform(12, 24) / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return fftconvolve(samples, tail)


def add_noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise with a falling spectrum (white to brown), 10 to 40 dB below the speech."""
    size = next_fast_len(len(samples), real=True)
    spectrum = rfft(rng.standard_normal(size))
    spectrum /= np.maximum(1, np.arange(len(spectrum)) * 50 / len(spectrum)) ** rng.uniform(0, 1)
    noise = irfft(spectrum, size)[: len(samples)]
    gain = np.sqrt((samples**2).mean() / (noise**2).mean()) * 10 ** (-rng.uniform(10, 40) / 20)
    return samples + gain * noise


def synthesize(
    synth: Espeak, part: str, rng: np.random.Generator, names: bool = False
) -> Tuple[np.ndarray, str, str]:
    """Synthesise one utterance; return samples (num_samples,), float32, text and voice."""
    text = draw_words(part, rng)
    if names:
        text = with_names(text, part, rng)
    variants = TEST_VARIANTS if part == "test" else TRAIN_VARIANTS
    voice = f"{ACCENTS[rng.integers(len(ACCENTS))]}+{variants[rng.integers(len(variants))]}"
    rate, pitch, pitch_range = rng.integers(110, 200), rng.integers(30, 71), rng.integers(20, 81)
    speech = synth.say(text, voice, int(rate), int(pitch), int(pitch_range), int(rng.integers(0, 16)))
    common = math.gcd(SAMPLE_RATE, synth.sample_rate)
    samples = resample_poly(speech, SAMPLE_RATE // common, synth.sample_rate // common)
    samples = np.pad(samples, [int(SAMPLE_RATE * s) for s in rng.uniform(0.02, 0.25, 2)]).astype(np.float64)
    if rng.random() < 0.4:
        samples = add_room(samples, rng)
    samples = add_noise(samples, rng)
    if rng.random() < 0.5:  # a muted microphone; streaming decoders also append digital silence
        samples = np.pad(samples, [int(SAMPLE_RATE * rng.uniform(0, longest)) for longest in (0.1, 0.4)])
    return (
        (samples * 10 ** (rng.uniform(-20, -3) / 20) / np.abs(samples).max()).astype(np.float32),
        text,
        voice,
    )


def synthesize_chunk(opts: SynthOptions, job: Tuple[str, int, int]) -> List[MonoCut]:
    """Synthesise and write utterances ``first`` to ``last - 1`` of a part; return their cuts."""
    part, first, last = job
    if part in WORDLESS:
        return [
            _write(opts, part, i, draw_sound(_rng(opts, part, i), SAMPLE_RATE)) for i in range(first, last)
        ]
    synth = Espeak()
    cuts = []
    for index in range(first, last):
        cuts.append(_write(opts, part, index, *synthesize(synth, part, _rng(opts, part, index), opts.names)))
    synth.close()
    return cuts


def _rng(opts: SynthOptions, part: str, index: int) -> np.random.Generator:
    return np.random.default_rng([opts.seed, (*PARTS, *WORDLESS).index(part), index])


def _write(
    opts: SynthOptions,
    part: str,
    index: int,
    samples: np.ndarray,
    text: str = "",
    voice: Optional[str] = None,
) -> MonoCut:
    """Write a recording; return its cut."""
    name = f"synth-{part}-{index:05d}"
    path = Path(opts.audio_dir) / part / f"{name}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    return make_cut(name, path, len(samples), SAMPLE_RATE, text, speaker=voice)


def run(opts: SynthOptions) -> None:
    """Synthesise all parts; write each manifest when its part is complete."""
    counts = {part: getattr(opts, f"num_{part.replace('-', '_')}") for part in (*PARTS, *WORDLESS)}
    jobs = [(part, i, min(i + CHUNK, n)) for part, n in counts.items() for i in range(0, n, CHUNK)]
    results = process_map(partial(synthesize_chunk, opts), jobs, opts.nj)
    cuts: Dict[str, List[MonoCut]] = {part: [] for part in counts}
    with tqdm(total=sum(counts.values()), desc="synthesis", unit="utt", disable=None) as bar:
        for (part, first, last), chunk in zip(jobs, results):
            cuts[part] += chunk
            bar.update(last - first)
    cuts["train"] += cuts.pop("train-noise")
    if opts.names:
        Path(opts.manifest_dir, "names.txt").write_text("\n".join(test_names()) + "\n", encoding="utf-8")
    for part, made in cuts.items():
        if part in WORDLESS and not made:
            continue
        write_cuts(made, Path(opts.manifest_dir) / f"synth_cuts_{part}.jsonl.gz")
        voices = len({c.supervisions[0].speaker for c in made} - {None})
        logging.info(
            "%s: %d utterances, %.0f s, %d voices", part, len(made), sum(c.duration for c in made), voices
        )


if __name__ == "__main__":
    parser = Parser((__doc__ or "").partition("\n")[0])
    add_options(parser, SynthOptions)
    options = from_params(SynthOptions, parser.parse_args())
    setup_logger()
    run_program(lambda: run(options))
