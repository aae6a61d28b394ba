"""Make a cut manifest of noise, in windows of ten seconds.

The noise comes from a folder of recordings or from their manifests (e.g. MUSAN).
"""

from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.utils.options import option


@dataclass
class NoiseOptions:
    """Noise: recordings, windows and output."""

    noise_dir: str = option("", "folder of recordings, searched with all its subfolders")
    recordings: Tuple[str, ...] = option(
        (), "instead of a folder: manifests of recordings as lhotse writes them, separated by commas"
    )
    output: str = option("data/manifests/musan_cuts.jsonl.gz", "manifest to write")
    sample_rate: int = option(16000, "samples per second; other rates are resampled when read")
    window: float = option(10.0, "seconds of a cut", above=0)
    min_duration: float = option(5.0, "windows that are not longer than this are left out")
    keep_short: bool = option(True, "but recordings shorter than a window are kept, however short")


def _run(opts: NoiseOptions) -> None:
    from asr_core.data.noise import write_noise_cuts

    write_noise_cuts(
        opts.output,
        folder=opts.noise_dir,
        manifests=opts.recordings,
        sample_rate=opts.sample_rate,
        window=opts.window,
        min_duration=opts.min_duration,
        keep_short=opts.keep_short,
    )


main = program(NoiseOptions, __doc__, _run)


if __name__ == "__main__":
    main()
