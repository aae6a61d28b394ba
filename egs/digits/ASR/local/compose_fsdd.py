#!/usr/bin/env python3
"""Compose connected digits from the Free Spoken Digit Dataset.

An utterance consists of three to seven recordings of one speaker with 50 to 250 ms of silence
between them, at 16 kHz. As the dataset's authors recommend, recordings 0 to 4 of each speaker and
digit are for testing, the others for training and validation.
"""

import io
import logging
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import soundfile
from lhotse.cut import MonoCut
from lhotse.supervision import AlignmentItem
from scipy.signal import resample_poly
from strings import STRINGS, WORDS, draw_length

from asr_core.cli.program import run_program
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.utils.errors import UserError
from asr_core.utils.log import setup_logger
from asr_core.utils.options import Parser, add_options, from_params, option

SAMPLE_RATE = 16000
SEEDS = {"train": 20240101, "valid": 20240102, "test": 20240103}
INDICES = {"train": (5, 50), "valid": (5, 50), "test": (0, 5)}
NUM_RECORDINGS = 3000

# (speaker, digit, index) -> (num_samples,) float32 at 16 kHz
Recordings = Dict[Tuple[str, int, int], np.ndarray]


@dataclass
class ComposeOptions:
    """Composition: source, numbers of utterances, output."""

    archive: str = option("download/free-spoken-digit-dataset-master.tar.gz", "the dataset's source archive")
    name: str = option("fsdd", "prefix of utterance ids and manifest names")
    strings: str = option(
        "random",
        "random: independent digits; chain: a digit partly predicts the next one",
        choices=tuple(STRINGS),
    )
    audio_dir: str = option("data/fsdd/audio", "folder for the FLAC files")
    manifest_dir: str = option(
        "data/manifests",
        "folder for <name>_cuts_{train,valid,test}.jsonl.gz, except for parts with 0 utterances",
    )
    num_train: int = option(3000, "training utterances")
    num_valid: int = option(300, "validation utterances")
    num_test: int = option(300, "test utterances")


def read_archive(path: str) -> Recordings:
    """Read all recordings of the archive.

    Raises:
      UserError: the archive is missing, damaged or incomplete.
    """
    found: Recordings = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name)
                if name.parent.name != "recordings" or name.suffix != ".wav":
                    continue
                digit, speaker, index = name.stem.split("_")
                samples, rate = soundfile.read(
                    io.BytesIO(archive.extractfile(member).read()), dtype="float32"
                )
                found[speaker, int(digit), int(index)] = resample_poly(samples, SAMPLE_RATE // rate, 1)
    except FileNotFoundError as e:
        raise UserError(f"no archive {path}; run stage 0, or give its folder with --dl-dir") from e
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, soundfile.LibsndfileError) as e:
        raise UserError(f"{path} is damaged ({e}); remove it and restart from stage 0") from e
    if len(found) < NUM_RECORDINGS:
        raise UserError(
            f"{path} holds {len(found)} of {NUM_RECORDINGS} recordings; remove it and restart from stage 0"
        )
    return found


class Plan(NamedTuple):
    """An utterance to compose.

    Attributes:
      speaker: who says it.
      choices: the digit and index of each recording.
      gaps: seconds of silence between them, one fewer.
    """

    speaker: str
    choices: List[Tuple[int, int]]
    gaps: List[float]


def draw(part: str, num: int, speakers: List[str], strings: str) -> List[Plan]:
    """Plan ``num`` utterances of ``part``."""
    rng = np.random.default_rng(SEEDS[part])
    plans = []
    for _ in range(num):
        length = draw_length(rng)
        digits, indices = STRINGS[strings](rng, length), rng.integers(*INDICES[part], size=length)
        speaker = speakers[rng.integers(len(speakers))]
        choices = [(digit, int(index)) for digit, index in zip(digits, indices)]
        plans.append(Plan(speaker, choices, rng.uniform(0.05, 0.25, length - 1).tolist()))
    return plans


def compose(recordings: Recordings, folder: Path, prefix: str, plans: List[Plan]) -> List[MonoCut]:
    """Compose and write utterances; return their cuts, which have alignments of the words."""
    folder.mkdir(parents=True, exist_ok=True)
    cuts = []
    for number, (speaker, choices, gaps) in enumerate(plans):
        pieces = [recordings[(speaker, *choices[0])]]
        for choice, gap in zip(choices[1:], gaps):
            pieces += [np.zeros(int(SAMPLE_RATE * gap), np.float32), recordings[(speaker, *choice)]]
        samples = np.concatenate(pieces)
        name = f"{prefix}-{number:05d}"
        path = folder / f"{name}.flac"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        words = [WORDS[digit] for digit, _ in choices]
        cut = make_cut(name, path, len(samples), SAMPLE_RATE, " ".join(words), speaker=speaker)
        ends = np.cumsum([len(piece) for piece in pieces]) / SAMPLE_RATE
        seconds = [len(piece) / SAMPLE_RATE for piece in pieces]
        places = zip(words, ends[::2] - seconds[::2], seconds[::2])  # every other piece is silence
        cut.supervisions[0].alignment = {
            "word": [AlignmentItem(word, round(start, 4), round(length, 4)) for word, start, length in places]
        }
        cuts.append(cut)
    return cuts


def run(opts: ComposeOptions) -> None:
    """Compose all parts; write each manifest when its part is complete."""
    recordings = read_archive(opts.archive)
    speakers = sorted({speaker for speaker, _, _ in recordings})
    for part in SEEDS:
        num = getattr(opts, f"num_{part}")
        if num == 0:
            continue
        plans = draw(part, num, speakers, opts.strings)
        made = compose(recordings, Path(opts.audio_dir) / part, f"{opts.name}-{part}", plans)
        write_cuts(made, Path(opts.manifest_dir) / f"{opts.name}_cuts_{part}.jsonl.gz")
        logging.info(
            "%s: %d utterances, %.0f s, %d speakers",
            part,
            len(made),
            sum(c.duration for c in made),
            len(speakers),
        )


if __name__ == "__main__":
    parser = Parser((__doc__ or "").partition("\n")[0])
    add_options(parser, ComposeOptions)
    options = from_params(ComposeOptions, parser.parse_args())
    setup_logger()
    run_program(lambda: run(options))
