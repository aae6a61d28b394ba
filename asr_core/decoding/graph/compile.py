"""Composition of decoding graphs from a lexicon and a grammar, with kaldifst."""

import dataclasses
import logging
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, List, Mapping

import numpy as np

from asr_core.decoding.graph.ctc_topology import topology_arcs
from asr_core.decoding.graph.epsilon_removal import remove_epsilons
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.k2_graph import prepared_graph, read_prepared_graph
from asr_core.lm.symbols import DISAMBIG, read_symbols
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

if TYPE_CHECKING:
    import kaldifst as kaldifst_types


def compile_lg(lang_dir: PathLike, grammar: PathLike) -> Fsa:
    """Compose lexicon and grammar: LG, one graph from tokens to words.

    L and G are composed and determinised in the log semiring, so that words with equal beginnings
    share states; then the disambiguation symbols are taken off, and the arcs that neither read nor
    write anything go.

    Args:
      lang_dir: has L_disambig.fst.txt, tokens.txt and words.txt with their disambiguation symbols.
      grammar: an acceptor of words in OpenFst text whose back-off arcs read ``#0``.

    Raises:
      UserError: a file is missing, kaldifst is not installed, or nothing is left.
    """
    kaldifst = _kaldifst()
    lg = _token_graph(kaldifst, Path(lang_dir), Path(grammar), use_log=True)
    return Fsa.parse(_lines(lg), "LG")


def compile_hlg(lang_dir: PathLike, grammar: PathLike, modified: bool = False) -> Fsa:
    """Compose the topology of CTC, lexicon and grammar: HLG, one graph from frames to words.

    L and G are composed as for :func:`compile_lg`, but determinised in the tropical semiring, which
    keeps the best path's score. The labels of frames are tokens plus one: 1 is the blank, 0 reads
    nothing.

    Args:
      lang_dir, grammar: as for :func:`compile_lg`.
      modified: take the modified topology, whose graph is smaller, see
        :func:`~asr_core.decoding.graph.ctc_topology.topology_arcs`.

    Raises:
      UserError: a file is missing, kaldifst is not installed, or nothing is left.
    """
    kaldifst, lang_dir = _kaldifst(), Path(lang_dir)
    lg = _token_graph(kaldifst, lang_dir, Path(grammar), use_log=False)
    tokens = read_symbols(lang_dir / "tokens.txt")
    topology = _compiled(kaldifst, topology_arcs(_first_disambiguation(tokens, "tokens.txt"), modified))
    kaldifst.arcsort(topology, "olabel")
    kaldifst.arcsort(lg, "ilabel")
    hlg = kaldifst.compose(topology, lg)
    kaldifst.connect(hlg)
    logging.info("H o L o G: %d states", hlg.num_states)
    return Fsa.parse(_lines(hlg), "HLG")


def find_grammar(name: str, folder: PathLike) -> Path:
    """Return the file of a grammar: ``name`` itself, or ``<name>.fst.txt`` else ``.pt`` there."""
    if Path(name).is_file():
        return Path(name)
    return prepared_graph(folder, name)


def _token_graph(
    kaldifst: ModuleType, lang_dir: Path, grammar: Path, use_log: bool
) -> "kaldifst_types.StdVectorFst":
    """Compose and determinise L and G, without disambiguation symbols."""
    tokens, words = read_symbols(lang_dir / "tokens.txt"), read_symbols(lang_dir / "words.txt")
    # icefall's L has the states of k2
    lexicon = _compiled(kaldifst, read_prepared_graph(prepared_graph(lang_dir, "L_disambig")))
    g = _grammar(kaldifst, grammar, words)
    kaldifst.arcsort(lexicon, "olabel")
    kaldifst.arcsort(g, "ilabel")
    lg = kaldifst.compose(lexicon, g)
    logging.info("L o G: %d states", lg.num_states)
    if lg.num_states == 0:
        raise UserError(f"{grammar} and the lexicon in {lang_dir} have no words in common")
    kaldifst.determinize_star(lg, use_log=use_log)
    logging.info("determinised: %d states", lg.num_states)
    plain = _without_disambiguation(Fsa.parse(_lines(lg), "LG"), tokens, words)
    lg = _compiled(kaldifst, remove_epsilons(plain, silent_only=True))
    kaldifst.connect(lg)
    logging.info("without epsilons: %d states", lg.num_states)
    return lg


def _grammar(kaldifst: ModuleType, path: Path, words: Mapping[str, int]) -> "kaldifst_types.StdVectorFst":
    graph = read_prepared_graph(path)
    backs_off = (graph.label == 0) & (graph.output == 0)  # as in icefall's G_4_gram.pt
    graph = dataclasses.replace(
        graph, label=np.where(backs_off, words.get(DISAMBIG, 0), graph.label).astype(np.int32)
    )
    strange = (graph.label != graph.output) & (graph.label != words.get(DISAMBIG, -1))
    if strange.any():
        raise UserError(
            f"{path} is not a grammar: it reads and writes different words; make one with arpa_to_fst"
        )
    return _compiled(kaldifst, graph)


def _without_disambiguation(graph: Fsa, tokens: Mapping[str, int], words: Mapping[str, int]) -> Fsa:
    first_token, first_word = (
        _first_disambiguation(table, name) for table, name in ((tokens, "tokens.txt"), (words, "words.txt"))
    )
    label = np.where(graph.label >= first_token, 0, graph.label).astype(np.int32)
    return dataclasses.replace(
        graph, label=label, output=np.where(graph.output >= first_word, 0, graph.output).astype(np.int32)
    )


def _first_disambiguation(table: Mapping[str, int], name: str) -> int:
    if DISAMBIG not in table:
        raise UserError(
            f"{name} has no {DISAMBIG}: it was not made for a lexicon with disambiguation symbols"
        )
    return table[DISAMBIG]


def _compiled(kaldifst: ModuleType, graph: Fsa) -> "kaldifst_types.StdVectorFst":
    return kaldifst.compile("".join(graph.text()), acceptor=False)


def _lines(fst: "kaldifst_types.StdVectorFst") -> List[str]:
    return fst.to_str(show_weight_one=True).splitlines()


def _kaldifst() -> ModuleType:
    try:
        import kaldifst
    except ImportError as e:
        raise UserError("composing graphs needs kaldifst: pip install kaldifst") from e
    return kaldifst


def write_lg(lang_dir: PathLike, lm: str, lm_dir: PathLike) -> None:
    """Write ``LG.fst.txt`` to a lang folder.

    Args:
      lang_dir: see :func:`compile_lg`.
      lm, lm_dir: the grammar, see :func:`find_grammar`.
    """
    _write(compile_lg(lang_dir, find_grammar(lm, lm_dir)), Path(lang_dir) / "LG.fst.txt")


def write_hlg(lang_dir: PathLike, lm: str, lm_dir: PathLike, modified: bool = False) -> None:
    """Write ``HLG.fst.txt`` to a lang folder.

    Arguments as for :func:`write_lg` and :func:`compile_hlg`.
    """
    _write(compile_hlg(lang_dir, find_grammar(lm, lm_dir), modified), Path(lang_dir) / "HLG.fst.txt")


def _write(graph: Fsa, path: Path) -> None:
    graph.write(path)
    logging.info("%s: %d states, %d arcs", path, graph.num_states, graph.num_arcs)
