"""Check cut manifests and Shar folders; exit with status 1 and the problems if any cut is unfit.

Unfit is what training or decoding would leave out, whatever the model. With --bpe-model, print
statistics too.
"""

from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.data.options import EMPTY_TEXTS, JoinOptions, TrustOptions
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class ValidateOptions(JoinOptions, TrustOptions):
    """Manifests to check."""

    manifests: Tuple[str, ...] = option(
        (), "cut manifests, .jsonl.gz, or Shar folders", positional=True, path=PathKind.EITHER
    )
    read_data: bool = option(False, "read all features or audio too")
    empty_text: str = option(
        "drop", "cuts without words, such as noise: unfit (drop), or fine (keep)", choices=EMPTY_TEXTS
    )
    bpe_model: str = option(
        "", "print statistics of the cuts, and of these tokens in them", path=PathKind.EITHER
    )


def _run(opts: ValidateOptions) -> None:
    from asr_core.data.manifest_checks import CheckOptions, validate_manifests

    checks = CheckOptions(
        opts.read_data, opts.empty_text == "keep", opts.join_supervisions, opts.allow_commands
    )
    validate_manifests(opts.manifests, checks, opts.bpe_model)


main = program(ValidateOptions, __doc__, _run)


if __name__ == "__main__":
    main()
