"""Compose a lexicon and a grammar into the graph LG.fst.txt that fast_beam_search_LG decodes with. Needs kaldifst."""

import logging
from dataclasses import dataclass
from typing import Any, Optional, Sequence, Type

from asr_core.cli.program import run_program
from asr_core.utils.options import Parser, add_options, from_params, option


@dataclass
class CompileLgOptions:
    """Composition: what of, and where to."""

    lang_dir: str = option(
        "data/lang_bpe_500", "has L_disambig.fst.txt, tokens.txt and words.txt; the graph goes there too"
    )
    lm: str = option(
        "G_3_gram", "the grammar: a file in OpenFst text, or its name without .fst.txt in --lm-dir"
    )
    lm_dir: str = option("data/lm", "folder of grammars")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse the command line and run."""
    compile_with(CompileLgOptions, __doc__, "LG", argv)


def compile_with(options: Type[CompileLgOptions], doc: str, name: str, argv: Optional[Sequence[str]]) -> None:
    """Parse the command line of a program that composes a graph, and run it.

    Args:
      options: the program's.
      doc: what it does.
      name: of the graph, LG or HLG.
      argv: the command line, by default this process'.
    """
    from asr_core.utils.log import setup_logger

    parser = Parser(doc)
    add_options(parser, options)
    opts = from_params(options, parser.parse_args(argv))
    setup_logger()
    run_program(lambda: _run(opts, name))


def _run(opts: Any, name: str) -> None:
    from pathlib import Path

    from asr_core.decoding.graph.compile import compile_hlg, compile_lg, find_grammar

    grammar, path = find_grammar(opts.lm, opts.lm_dir), Path(opts.lang_dir) / f"{name}.fst.txt"
    graph = (
        compile_hlg(opts.lang_dir, grammar, opts.modified)
        if name == "HLG"
        else compile_lg(opts.lang_dir, grammar)
    )
    graph.write(path)
    logging.info("%s: %d states, %d arcs", path, graph.num_states, graph.num_arcs)


if __name__ == "__main__":
    main()
