"""Compose CTC's topology, a lexicon and a grammar into the graph HLG.fst.txt that ctc_decode.py searches. Needs kaldifst."""

import logging
from dataclasses import dataclass
from typing import Optional, Sequence

from asr_core.bin.common import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class CompileHlgOptions:
    """Composition: what of, and where to."""

    lang_dir: str = option("data/lang_bpe_500", "has L_disambig.fst.txt, tokens.txt and words.txt; HLG.fst.txt goes there too")
    lm: str = option("G_3_gram", "the grammar: a file in OpenFst text, or its name without .fst.txt in --lm-dir")
    lm_dir: str = option("data/lm", "folder of grammars")
    modified: bool = option(False, "with the modified topology, which asks for no blank between equal tokens: a smaller graph")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    from asr_core.utils.log import setup_logger

    parser = Parser(__doc__)
    add_options(parser, CompileHlgOptions)
    opts = from_params(CompileHlgOptions, parser.parse_args(argv))
    setup_logger()
    run_program(lambda: _run(opts))


def _run(opts: CompileHlgOptions) -> None:
    from pathlib import Path

    from asr_core.decoding.compile_graph import compile_hlg, find_grammar

    graph = compile_hlg(opts.lang_dir, find_grammar(opts.lm, opts.lm_dir), opts.modified)
    graph.write(Path(opts.lang_dir) / "HLG.fst.txt")
    logging.info("%s: %d states, %d arcs", Path(opts.lang_dir) / "HLG.fst.txt", graph.num_states, graph.num_arcs)


if __name__ == "__main__":
    main()
