"""Make cut manifests and the training transcripts from TSV files (audio-path<TAB>transcript)."""

from pathlib import Path
from typing import Optional, Sequence

from asr_core.cli.program import run_program
from asr_core.data.preparation_options import TsvOptions
from asr_core.utils.lock import hold_output
from asr_core.utils.log import setup_logger
from asr_core.utils.options import Parser
from asr_core.utils.parsing import parse_options


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    opts = parse_options(TsvOptions, __doc__, argv)
    if not opts.files:
        Parser("").error("give --train, --valid or --test")
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: TsvOptions) -> None:
    from asr_core.data.tsv import write_tsv_manifests

    output = Path(opts.output_dir) / f"{opts.prefix}_cuts"
    with hold_output(output, "preparation of manifests", "choose another --output-dir"):
        write_tsv_manifests(opts)


if __name__ == "__main__":
    main()
