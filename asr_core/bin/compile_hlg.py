"""Compose CTC's topology, a lexicon and a grammar into the graph HLG.fst.txt.

ctc_decode.py searches it. Needs kaldifst.
"""

from dataclasses import dataclass

from asr_core.bin.compile_lg import CompileLgOptions
from asr_core.cli.program import program
from asr_core.utils.options import option


@dataclass
class CompileHlgOptions(CompileLgOptions):
    """Composition: inputs and output."""

    modified: bool = option(
        False, "with the modified topology, which asks for no blank between equal tokens: a smaller graph"
    )


def _run(opts: CompileHlgOptions) -> None:
    from asr_core.decoding.graph.compile import write_hlg

    write_hlg(opts.lang_dir, opts.lm, opts.lm_dir, opts.modified)


main = program(CompileHlgOptions, __doc__, _run)


if __name__ == "__main__":
    main()
