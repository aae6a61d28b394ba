"""Make a cut manifest of noise, in windows of ten seconds, from a folder of recordings or from their manifests (e.g. MUSAN)."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, add_options, from_params, option

_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus"}


@dataclass
class NoiseOptions:
    """Noise: the folder, the windows, where to write."""

    noise_dir: str = option("", "folder of recordings, searched with all its subfolders")
    recordings: str = option(
        "", "instead of a folder: manifests of recordings as lhotse writes them, separated by commas"
    )
    output: str = option("data/manifests/musan_cuts.jsonl.gz", "manifest to write")
    sample_rate: int = option(16000, "samples per second; other rates are resampled when read")
    window: float = option(10.0, "seconds of a cut")
    min_duration: float = option(5.0, "windows that are not longer than this are left out")
    keep_short: bool = option(True, "but recordings shorter than a window are kept, however short")


def noise_cuts(opts: NoiseOptions) -> List[Any]:
    """The windows of all recordings.

    Raises:
      UserError: the folder or a manifest is missing, or there is nothing in it.
    """
    from lhotse import MonoCut

    cuts = []
    for recording in _listed(opts) if opts.recordings else _found(opts):
        if recording.sampling_rate != opts.sample_rate:
            recording = recording.resample(opts.sample_rate)
        start = 0.0
        while start < recording.duration:
            length = min(opts.window, recording.duration - start)
            if length > opts.min_duration or (start == 0.0 and opts.keep_short):
                cuts.append(
                    MonoCut(f"{recording.id}-{len(cuts)}", start, round(length, 4), 0, recording=recording)
                )
            start += opts.window
    if not cuts:
        raise UserError(
            f"no usable noise ({', '.join(sorted(_SUFFIXES))}) in {opts.recordings or opts.noise_dir}"
        )
    return cuts


def _listed(opts: NoiseOptions) -> Iterator[Any]:
    from lhotse import RecordingSet

    for path in opts.recordings.split(","):
        if not Path(path).is_file():
            raise UserError(f"no such manifest of noise: {path}; run prepare.sh from stage 2")
        yield from RecordingSet.from_file(path)


def _found(opts: NoiseOptions) -> Iterator[Any]:
    from lhotse import Recording

    folder = Path(opts.noise_dir)
    if not folder.is_dir():
        raise UserError(f"no such folder of noise: {folder}")
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES):
        name = "-".join(path.relative_to(folder).with_suffix("").parts)
        try:
            yield Recording.from_file(path.resolve(), recording_id=name)
        except Exception as e:  # lhotse's readers raise many kinds
            logging.warning("left out %s: %s", path, type(e).__name__)


def prepare(opts: NoiseOptions) -> None:
    """Run the program with ``opts``."""
    from asr_core.data.manifest import write_cuts

    cuts = noise_cuts(opts)
    write_cuts(cuts, opts.output)
    logging.info("%s: %d cuts, %.2f hours", opts.output, len(cuts), sum(c.duration for c in cuts) / 3600)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, NoiseOptions)
    opts = from_params(NoiseOptions, parser.parse_args(argv))
    setup_logger()
    run_program(lambda: prepare(opts))


if __name__ == "__main__":
    main()
