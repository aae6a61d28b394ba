"""Write cuts and their data as Lhotse Shar: shards that are read in large pieces, for corpora on slow or shared disks."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class SharOptions:
    """Shar: which cuts, which data, where to write."""

    cuts: str = option("", "cut manifest, .jsonl.gz")
    shar_dir: str = option(
        "", "folder to write; training looks for a folder named as the part in its --shar-dir"
    )
    data: str = option(
        "",
        "what to store beside the cuts; left out: features if the cuts have them, else audio",
        choices=("", "features", "audio"),
    )
    features_format: str = option(
        "numpy",
        "form of features: float32, or compressed with loss, which needs lilcom",
        choices=("numpy", "lilcom"),
    )
    audio_format: str = option("flac", "form of audio", choices=("flac", "wav", "original"))
    shard_size: int = option(1000, "cuts of a shard")
    nj: int = option(2, "number of processes")


def write(opts: SharOptions) -> None:
    """Run the program with ``opts``.

    Raises:
      UserError: the manifest is missing, or a package that the format needs.
    """
    from importlib.util import find_spec

    from asr_core.data.shar import write_shar
    from asr_core.data.stream import view_of_line

    if opts.features_format == "lilcom" and find_spec("lilcom") is None:
        raise UserError("--features-format lilcom needs the package lilcom: pip install lilcom")
    data = opts.data
    if not data:
        from asr_core.data.manifest import open_lines

        with open_lines(opts.cuts) as lines:
            first = next(iter(lines), None)
        data = "features" if first and view_of_line(first).has_features else "audio"
    fields = {"features": opts.features_format} if data == "features" else {"recording": opts.audio_format}
    number = write_shar(Path(opts.cuts), Path(opts.shar_dir), fields, opts.shard_size, opts.nj)
    logging.info("%s: %d shards with %s", opts.shar_dir, number, data)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, SharOptions)
    opts = from_params(SharOptions, parser.parse_args(argv))
    if not (opts.cuts and opts.shar_dir):
        parser.error("--cuts and --shar-dir are needed")
    setup_logger()
    run_program(lambda: write(opts))


if __name__ == "__main__":
    main()
