"""Check cut manifests; exit with status 1 and the problems if any cut is unfit.

With --bpe-model, print statistics too.
"""

from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from asr_core.cli.program import parse_and_run
from asr_core.utils.options import option


@dataclass
class ValidateOptions:
    """Manifests to check."""

    manifests: Tuple[str, ...] = option((), "cut manifests, .jsonl.gz", positional=True)
    read_data: bool = option(False, "read all features or audio too")
    bpe_model: str = option("", "print statistics of the cuts, and of these tokens in them")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parse_and_run(ValidateOptions, __doc__, argv, _run)


def _run(opts: ValidateOptions) -> None:
    from asr_core.data.manifest_checks import validate_manifests

    validate_manifests(opts.manifests, read_data=opts.read_data, bpe_model=opts.bpe_model)


if __name__ == "__main__":
    main()
