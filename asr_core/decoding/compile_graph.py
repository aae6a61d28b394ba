"""Decoding graphs composed of a lexicon and a grammar, with kaldifst."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from asr_core.decoding.fsa import Fsa
from asr_core.lm.symbols import DISAMBIG, read_symbols
from asr_core.utils.errors import UserError
from asr_core.utils.files import PathLike


def compile_lg(lang_dir: PathLike, grammar: PathLike) -> Fsa:
    """Lexicon and grammar as one graph from tokens to words.

    L and G are composed and determinised in the log semiring, so that words with equal beginnings share states; then the
    disambiguation symbols are taken off, and the arcs that neither read nor write anything go.

    Args:
      lang_dir: has L_disambig.fst.txt, tokens.txt and words.txt with their disambiguation symbols.
      grammar: an acceptor of words in OpenFst text whose backoff arcs read ``#0``.

    Raises:
      UserError: a file is missing, kaldifst is not installed, or nothing is left.
    """
    kaldifst = _kaldifst()
    lang_dir = Path(lang_dir)
    tokens, words = read_symbols(lang_dir / "tokens.txt"), read_symbols(lang_dir / "words.txt")
    lexicon = _read(kaldifst, lang_dir / "L_disambig.fst.txt")
    g = _read(kaldifst, Path(grammar))
    kaldifst.arcsort(lexicon, "olabel")
    kaldifst.arcsort(g, "ilabel")
    lg = kaldifst.compose(lexicon, g)
    logging.info("L o G: %d states", lg.num_states)
    if lg.num_states == 0:
        raise UserError(f"{grammar} and the lexicon in {lang_dir} have no words in common")
    kaldifst.determinize_star(lg, use_log=True)
    logging.info("determinised: %d states", lg.num_states)
    plain = _without_disambiguation(Fsa.parse(_lines(lg), "LG"), tokens, words)
    lg = kaldifst.compile("".join(plain.text()), acceptor=False)
    kaldifst.rmepsilon(lg)
    return Fsa.parse(_lines(lg), "LG")


def _without_disambiguation(graph: Fsa, tokens: Mapping[str, int], words: Mapping[str, int]) -> Fsa:
    first_token, first_word = (_first_disambiguation(table, name) for table, name in ((tokens, "tokens.txt"), (words, "words.txt")))
    label = np.where(graph.label >= first_token, 0, graph.label).astype(np.int32)
    return dataclasses.replace(graph, label=label, output=np.where(graph.output >= first_word, 0, graph.output).astype(np.int32))


def _first_disambiguation(table: Mapping[str, int], name: str) -> int:
    if DISAMBIG not in table:
        raise UserError(f"{name} has no {DISAMBIG}: it was not made for a lexicon with disambiguation symbols")
    return table[DISAMBIG]


def _read(kaldifst: Any, path: Path) -> Any:
    return kaldifst.compile("".join(Fsa.read(path).text()), acceptor=False)


def _lines(fst: Any) -> Any:
    return fst.to_str(show_weight_one=True).splitlines()


def _kaldifst() -> Any:
    try:
        import kaldifst
    except ImportError as e:
        raise UserError("composing graphs needs kaldifst: pip install kaldifst") from e
    return kaldifst
