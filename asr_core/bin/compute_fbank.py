"""Compute and store log-mel features of the parts of a corpus."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.data.options import FEATURE_TYPES, DataOptions
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class FbankOptions:
    """Features: what to read, what to write, who computes."""

    src_dir: str = option(
        "data/manifests",
        "folder of the cut manifests without features, or of lhotse's recordings and supervisions",
    )
    output_dir: str = option("data/fbank", "folder for features and for the cut manifests that point to them")
    prefix: str = option("", "how the manifests' names begin: <prefix>_cuts_<part>.jsonl.gz")
    parts: str = option(
        "train,valid,test",
        "parts, separated by commas; those whose manifest is already in --output-dir are skipped",
    )
    perturb_speed: bool = option(
        False, "store the parts whose names begin with train at speeds 0.9 and 1.1 too"
    )
    num_mel_bins: int = option(80, "mel filters: the dimension of the features")
    sample_rate: int = option(16000, "samples per second; other rates are resampled")
    feature_type: str = option("fbank", "kind of features, as in training", choices=FEATURE_TYPES)
    nj: int = option(2, "number of processes")
    dask_scheduler: str = option(
        "", "address of a Dask scheduler whose cluster computes instead, e.g. tcp://node1:8786"
    )


def compute(opts: FbankOptions) -> None:
    """Run the program with ``opts``."""
    from asr_core.data.parallel import dask_client

    start = f"{opts.prefix}_" if opts.prefix else ""
    targets = {
        part: Path(opts.output_dir) / f"{start}cuts{part and '_'}{part}.jsonl.gz"
        for part in opts.parts.split(",")
    }
    for target in targets.values():
        if target.is_file():
            logging.info("%s exists; skipped", target)
    waiting = {part: target for part, target in targets.items() if not target.is_file()}
    client = dask_client(opts.dask_scheduler) if opts.dask_scheduler and waiting else None
    try:
        for part, target in waiting.items():
            _compute_part(opts, part, target, client)
    finally:
        if client is not None:
            client.close()


def _compute_part(opts: FbankOptions, part: str, target: Path, client: Any) -> None:
    from asr_core.data.compute import compute_features
    from asr_core.data.manifest import join_manifests, write_cuts

    source = Path(opts.src_dir) / target.name
    if not source.is_file() and (source.parent / f"{opts.prefix}_recordings_{part}.jsonl.gz").is_file():
        write_cuts(join_manifests(source.parent, opts.prefix, part), source)
    data = DataOptions(
        num_mel_bins=opts.num_mel_bins, sample_rate=opts.sample_rate, feature_type=opts.feature_type
    )
    perturb = opts.perturb_speed and part.startswith("train")
    done = compute_features(source, target, data, nj=opts.nj, speed_perturb=perturb, client=client)
    logging.info(
        "%s: %d cuts, %.2f hours, %d left out as unreadable",
        target,
        done.cuts,
        done.seconds / 3600,
        len(done.dropped),
    )


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
