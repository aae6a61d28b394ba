"""Make manifests of a corpus that lhotse knows.

They are recordings, supervisions and, where each recording has its text, cuts.
"""

from dataclasses import dataclass
from typing import Tuple

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.option_values import MAX_PROCESSES
from asr_core.utils.options import option


@dataclass
class ManifestOptions:
    """Manifests: corpus, source and target."""

    corpus: str = option("", "lhotse's name of the corpus, e.g. librispeech, musan", needed=True)
    corpus_dir: str = option("", "folder of the corpus", needed=True)
    output_dir: str = option(
        "data/manifests",
        "folder for <corpus>_{recordings,supervisions,cuts}_<part>.jsonl.gz",
        path=PathKind.PLACE,
    )
    parts: Tuple[str, ...] = option(
        (), "parts, separated by commas; those that are in --output-dir are skipped", needed=True
    )
    nj: int = option(
        2, "number of threads that read the headers of recordings", at_least=1, at_most=MAX_PROCESSES
    )


def _run(opts: ManifestOptions) -> None:
    from asr_core.data.lhotse_corpora import write_parts

    write_parts(opts.corpus, opts.corpus_dir, opts.output_dir, opts.parts, opts.nj)


main = program(ManifestOptions, __doc__, _run)


if __name__ == "__main__":
    main()
