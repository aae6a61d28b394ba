"""Make cut manifests and the transcripts of the training part from TSV files (audio-path<TAB>transcript)."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class TsvOptions:
    """TSV files: what to read, what to do about bad lines, where to write."""

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


def prepare(opts: TsvOptions) -> None:
    """Run the program with ``opts``."""
    from asr_core.data.manifest import write_cuts
    from asr_core.data.tsv import cuts_of_lines, read_tsv
    from asr_core.utils.files import write_text_atomic

    given = [part for part in ("train", "valid", "test") if getattr(opts, part)]
    lines = {part: read_tsv(getattr(opts, part), opts.on_bad_line, opts.normalize) for part in given}
    made = {part: cuts_of_lines(lines[part], opts.sample_rate, opts.nj) for part in given}
    for part, (cuts, left_out) in made.items():
        target = Path(opts.output_dir) / f"{opts.prefix}_cuts_{part}.jsonl.gz"
        if part == "train" and opts.transcript:
            write_text_atomic(opts.transcript, "".join(f"{c.supervisions[0].text}\n" for c in cuts))
        write_cuts(cuts, target)
        logging.info(
            "%s: %d cuts, %.2f hours, %d left out",
            target,
            len(cuts),
            sum(c.duration for c in cuts) / 3600,
            left_out,
        )


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, TsvOptions)
    opts = from_params(TsvOptions, parser.parse_args(argv))
    if not (opts.train or opts.valid or opts.test):
        parser.error("give --train, --valid or --test")
    setup_logger()
    run_program(lambda: prepare(opts))


if __name__ == "__main__":
    main()
