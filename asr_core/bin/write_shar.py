"""Write cuts and their data as Lhotse Shar.

Its shards are read in large pieces, which suits corpora on slow or shared disks.
"""

from dataclasses import dataclass
from pathlib import Path

from asr_core.cli.program import program
from asr_core.data.options import TrustOptions, UnreadableOptions
from asr_core.utils.lock import hold_output
from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import MAX_PROCESSES
from asr_core.utils.options import option


@dataclass
class SharOptions(UnreadableOptions, TrustOptions):
    """Shar: cuts, data and output."""

    cuts: str = option("", "cut manifest, .jsonl.gz", needed=True, path=PathKind.FILE)
    shar_dir: str = option(
        "",
        "folder to write; training looks for a folder named as the part in its --shar-dir",
        needed=True,
        path=PathKind.PLACE,
    )
    data: str = option(
        "",
        "what to store besides the cuts; left out: features if the cuts have them, else audio",
        choices=("", "features", "audio"),
    )
    features_format: str = option(
        "numpy",
        "form of features: float32, or compressed with loss, which needs lilcom",
        choices=("numpy", "lilcom"),
    )
    audio_format: str = option("flac", "form of audio", choices=("flac", "wav", "original"))
    shard_size: int = option(1000, "cuts of a shard", at_least=1)
    nj: int = option(2, "number of processes", at_least=1, at_most=MAX_PROCESSES)


def _run(opts: SharOptions) -> None:
    from asr_core.data.shar import shar_fields, write_shar

    fields = shar_fields(
        opts.cuts, opts.data, features_format=opts.features_format, audio_format=opts.audio_format
    )
    with hold_output(opts.shar_dir, "writing of Shar", "choose another --shar-dir"):
        write_shar(
            Path(opts.cuts),
            Path(opts.shar_dir),
            fields,
            opts.shard_size,
            opts.nj,
            opts.allow_commands,
            opts.max_unreadable,
        )


main = program(SharOptions, __doc__, _run)


if __name__ == "__main__":
    main()
