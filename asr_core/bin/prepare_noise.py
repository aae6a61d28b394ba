"""Make a cut manifest of noise, in windows of ten seconds.

The noise comes from a folder of recordings or from their manifests (e.g. MUSAN).
"""

from asr_core.cli.program import program
from asr_core.data.preparation_options import NoiseOptions


def _run(opts: NoiseOptions) -> None:
    from asr_core.data.noise import write_noise_cuts

    write_noise_cuts(opts)


main = program(NoiseOptions, __doc__, _run)


if __name__ == "__main__":
    main()
