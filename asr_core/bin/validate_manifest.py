"""Check cut manifests; exit with status 1 and the problems if any cut is unfit.

With --bpe-model, print statistics too.
"""

from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.data.options import EMPTY_TEXTS, TrustOptions
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class ValidateOptions(TrustOptions):
    """Manifests to check."""

    manifests: Tuple[str, ...] = option((), "cut manifests, .jsonl.gz", positional=True, path=PathKind.EITHER)
    read_data: bool = option(False, "read all features or audio too")
    empty_text: str = option(
        "drop", "cuts without words, such as noise: unfit (drop), or fine (keep)", choices=EMPTY_TEXTS
    )
    bpe_model: str = option(
        "", "print statistics of the cuts, and of these tokens in them", path=PathKind.EITHER
    )


def _run(opts: ValidateOptions) -> None:
    from asr_core.data.manifest_checks import validate_manifests

    validate_manifests(
        opts.manifests,
        read_data=opts.read_data,
        keep_empty=opts.empty_text == "keep",
        bpe_model=opts.bpe_model,
        allow_commands=opts.allow_commands,
    )


main = program(ValidateOptions, __doc__, _run)


if __name__ == "__main__":
    main()
