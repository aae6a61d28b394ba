"""Compute and store log-mel features of the parts of a corpus."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from asr_core.bin.common import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class FbankOptions:
    """Features: what to read, what to write."""

    src_dir: str = option("data/manifests", "folder of the cut manifests without features")
    output_dir: str = option("data/fbank", "folder for features and for the cut manifests that point to them")
    prefix: str = option("", "how the manifests' names begin: <prefix>_cuts_<part>.jsonl.gz")
    parts: str = option("train,valid,test", "parts, separated by commas; those whose manifest is already in --output-dir are skipped")
    perturb_speed: bool = option(False, "store the first part at speeds 0.9 and 1.1 too")
    num_mel_bins: int = option(80, "mel filters: the dimension of the features")
    sample_rate: int = option(16000, "samples per second; other rates are resampled")
    nj: int = option(2, "number of processes")


def compute(opts: FbankOptions) -> None:
    """Run the program with ``opts``."""
    from asr_core.data.compute import compute_features
    from asr_core.data.options import DataOptions

    data = DataOptions(num_mel_bins=opts.num_mel_bins, sample_rate=opts.sample_rate)
    start = f"{opts.prefix}_" if opts.prefix else ""
    for i, part in enumerate(opts.parts.split(",")):
        name = f"{start}cuts_{part}.jsonl.gz" if part else f"{start}cuts.jsonl.gz"
        target = Path(opts.output_dir) / name
        if target.is_file():
            logging.info("%s exists; skipped", target)
            continue
        done = compute_features(Path(opts.src_dir) / name, target, data, opts.nj, opts.perturb_speed and i == 0)
        hours = sum(c.duration for c in done.cuts) / 3600
        logging.info("%s: %d cuts, %.2f hours, %d left out as unreadable", target, len(done.cuts), hours, len(done.dropped))


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, FbankOptions)
    opts = from_params(FbankOptions, parser.parse_args(argv))
    setup_logger()
    run_program(lambda: compute(opts))


if __name__ == "__main__":
    main()
