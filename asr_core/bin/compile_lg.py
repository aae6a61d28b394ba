"""Compose a lexicon and a grammar into the graph LG.fst.txt.

fast_beam_search_LG decodes with it. Needs kaldifst.
"""

from dataclasses import dataclass

from asr_core.cli.program import program
from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import option


@dataclass
class CompileLgOptions:
    """Composition: inputs and output."""

    lang_dir: str = option(
        "data/lang_bpe_500",
        "has L_disambig.fst.txt, tokens.txt and words.txt; the graph goes there too",
        path=PathKind.FOLDER,
    )
    lm: str = option(
        "G_3_gram", "the grammar: a file in OpenFst text, or its name without .fst.txt in --lm-dir"
    )
    lm_dir: str = option("data/lm", "folder of grammars", path=PathKind.FOLDER)


def _run(opts: CompileLgOptions) -> None:
    from asr_core.decoding.graph.compile import write_lg

    write_lg(opts.lang_dir, opts.lm, opts.lm_dir)


main = program(CompileLgOptions, __doc__, _run)


if __name__ == "__main__":
    main()
