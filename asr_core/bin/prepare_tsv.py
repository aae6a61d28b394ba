"""Make cut manifests and the training transcripts from TSV files (audio-path<TAB>transcript)."""

from dataclasses import dataclass
from typing import Dict, Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.log import setup_logger
from asr_core.utils.options import Parser, option
from asr_core.utils.parsing import parse_options


@dataclass
class TsvOptions:
    """TSV files: inputs, treatment of bad lines, output."""

    train: str = option("", "TSV file of training recordings")
    valid: str = option("", "TSV file of validation recordings")
    test: str = option("", "TSV file of test recordings")
    output_dir: str = option("data/manifests", "folder for <prefix>_cuts_<part>.jsonl.gz")
    prefix: str = option("custom", "how the manifests' names begin")
    transcript: str = option("", "also write the training transcripts to this file, one a line")
    normalize: str = option("none", "case of the transcripts", choices=("none", "lower", "upper"))
    on_bad_line: str = option(
        "error", "a malformed line ends the program, or is skipped with a warning", choices=("error", "skip")
    )
    sample_rate: int = option(16000, "samples per second; other rates are resampled when read")
    nj: int = option(2, "number of threads that read audio")

    @property
    def files(self) -> Dict[str, str]:
        """The TSV files that were given, by part."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {part: path for part, path in parts.items() if path}


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    opts = parse_options(TsvOptions, __doc__, argv)
    if not opts.files:
        Parser("").error("give --train, --valid or --test")
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: TsvOptions) -> None:
    from asr_core.data.tsv import write_tsv_manifests

    write_tsv_manifests(
        opts.files,
        opts.output_dir,
        prefix=opts.prefix,
        transcript=opts.transcript,
        normalize=opts.normalize,
        on_bad_line=opts.on_bad_line,
        sample_rate=opts.sample_rate,
        nj=opts.nj,
    )


if __name__ == "__main__":
    main()
