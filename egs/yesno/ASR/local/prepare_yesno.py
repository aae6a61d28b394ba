#!/usr/bin/env python3
"""Create cut manifests of waves_yesno, whose file names contain the words: 1_0_... is YES NO ...

As in lhotse, every other recording is for testing. Three of the rest are for validation.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from lhotse.cut import MonoCut

from asr_core.cli.program import run_program
from asr_core.data.audio import read_audio
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.utils.errors import UserError
from asr_core.utils.log import setup_logger
from asr_core.utils.options import Parser, add_options, from_params, option

NUM_RECORDINGS = 60
WORDS = {"0": "NO", "1": "YES"}


@dataclass
class YesNoOptions:
    """waves_yesno: input and output folders."""

    corpus_dir: str = option("download/waves_yesno", "folder of the 60 recordings")
    manifest_dir: str = option("data/manifests", "folder for yesno_cuts_{train,valid,test}.jsonl.gz")
    sample_rate: int = option(
        16000, "sampling rate in Hz; the recordings, at 8000 Hz, are resampled when they are read"
    )


def transcript(path: Path) -> Optional[str]:
    """Return the words in a file name, or None if the name has another form."""
    marks = path.stem.split("_")
    return " ".join(WORDS[m] for m in marks) if len(marks) == 8 and set(marks) <= set(WORDS) else None


def read_recordings(opts: YesNoOptions) -> List[MonoCut]:
    """Return the cuts of all recordings, sorted by file name.

    Raises:
      UserError: recordings are missing or damaged.
    """
    files = [p for p in sorted(Path(opts.corpus_dir).glob("*.wav")) if transcript(p)]
    if len(files) != NUM_RECORDINGS:
        raise UserError(
            f"{opts.corpus_dir} holds {len(files)} of {NUM_RECORDINGS} recordings; remove it and restart "
            "from stage 0"
        )
    cuts = []
    for path in files:
        samples, rate = read_audio(path)
        cuts.append(
            make_cut(path.stem, path, samples.shape[1], rate, transcript(path)).resample(opts.sample_rate)
        )
    return cuts


def run(opts: YesNoOptions) -> None:
    """Write the manifests of all parts."""
    cuts = read_recordings(opts)
    others, test = cuts[::2], cuts[1::2]
    parts = {"train": [c for i, c in enumerate(others) if i % 10], "valid": others[::10], "test": test}
    for part, made in parts.items():
        write_cuts(made, Path(opts.manifest_dir) / f"yesno_cuts_{part}.jsonl.gz")
        logging.info("%s: %d utterances, %.0f s", part, len(made), sum(c.duration for c in made))


if __name__ == "__main__":
    parser = Parser((__doc__ or "").partition("\n")[0])
    add_options(parser, YesNoOptions)
    options = from_params(YesNoOptions, parser.parse_args())
    setup_logger()
    run_program(lambda: run(options))
