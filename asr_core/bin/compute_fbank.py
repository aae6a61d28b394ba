"""Compute and store log-mel features of the parts of a corpus."""

from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.data.options import FeatureOptions
from asr_core.utils.options import option


@dataclass
class FbankOptions(FeatureOptions):
    """Features: kind, input, output and workers."""

    src_dir: str = option(
        "data/manifests",
        "folder of the cut manifests without features, or of lhotse's recordings and supervisions",
    )
    output_dir: str = option("data/fbank", "folder for features and for the cut manifests that point to them")
    prefix: str = option("", "how the manifests' names begin: <prefix>_cuts_<part>.jsonl.gz")
    parts: Tuple[str, ...] = option(
        ("train", "valid", "test"),
        "parts, separated by commas; those whose manifest is already in --output-dir are skipped; "
        "'' for the only manifest of a corpus, <prefix>_cuts.jsonl.gz",
    )
    perturb_speed: bool = option(
        False, "store the parts whose names begin with train at speeds 0.9 and 1.1 too"
    )
    nj: int = option(2, "number of processes")
    dask_scheduler: str = option(
        "", "address of a Dask scheduler whose cluster computes instead, e.g. tcp://node1:8786"
    )


def _run(opts: FbankOptions) -> None:
    from asr_core.data.compute import compute_parts

    compute_parts(
        opts.parts or ("",),
        opts,
        src_dir=opts.src_dir,
        output_dir=opts.output_dir,
        prefix=opts.prefix,
        perturb_speed=opts.perturb_speed,
        nj=opts.nj,
        dask_scheduler=opts.dask_scheduler,
    )


main = program(FbankOptions, __doc__, _run)


if __name__ == "__main__":
    main()
