"""Print statistics of cut manifests: amounts, durations, words, tokens."""

from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.data.options import TrustOptions
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class DescribeOptions(TrustOptions):
    """Manifests to describe."""

    manifests: Tuple[str, ...] = option(
        (), "cut manifests, .jsonl.gz, or Shar folders", positional=True, path=PathKind.EITHER
    )
    bpe_model: str = option("", "count the tokens of this tokenizer too", path=PathKind.EITHER)


def _run(opts: DescribeOptions) -> None:
    from asr_core.data.manifest_checks import describe_manifests

    describe_manifests(opts.manifests, opts.bpe_model, opts.allow_commands)


main = program(DescribeOptions, __doc__, _run, log=False)


if __name__ == "__main__":
    main()
