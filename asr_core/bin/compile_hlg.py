"""Compose CTC's topology, a lexicon and a grammar into the graph HLG.fst.txt.

ctc_decode.py searches it. Needs kaldifst.
"""

from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.bin.compile_lg import CompileLgOptions
from asr_core.cli.program import parse_and_run
from asr_core.utils.options import option


@dataclass
class CompileHlgOptions(CompileLgOptions):
    """Composition: inputs and output."""

    modified: bool = option(
        False, "with the modified topology, which asks for no blank between equal tokens: a smaller graph"
    )


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    parse_and_run(CompileHlgOptions, __doc__, argv, _run)


def _run(opts: CompileHlgOptions) -> None:
    from asr_core.decoding.graph.compile import write_hlg

    write_hlg(opts.lang_dir, opts.lm, opts.lm_dir, opts.modified)


if __name__ == "__main__":
    main()
