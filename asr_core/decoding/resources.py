"""What searches need besides the model: language models, graphs, phrases to favour."""

from pathlib import Path
from typing import Any, List, NamedTuple, Optional

import torch

from asr_core.decoding.context_graph import ContextGraph
from asr_core.decoding.ctc_topology import search_graph
from asr_core.decoding.epsilons import remove_epsilons
from asr_core.decoding.fsa import Fsa
from asr_core.decoding.lm_loading import load_lm
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.word_lm import WordLm
from asr_core.lm.grammar_fst import read_openfst_text
from asr_core.lm.ngram import NgramLm
from asr_core.lm.options import LmOptions
from asr_core.lm.symbols import DISAMBIG, read_symbols
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError


class Resources(NamedTuple):
    """What a search may need; None where it is not needed.

    Attributes:
      lm: neural language model over tokens.
      ngram: :class:`~asr_core.lm.ngram.NgramLm` over token ids.
      graph: decoding graph from tokens to words.
      context_graph: phrases to favour.
      hlg: decoding graph from frames to words, for CTC.
      word_lm: word n-gram, for rescoring what was found with ``hlg``.
    """

    lm: Optional[Any] = None
    ngram: Optional[NgramLm] = None
    graph: Optional[Fsa] = None
    context_graph: Optional[ContextGraph] = None
    hlg: Optional[Fsa] = None
    word_lm: Optional[WordLm] = None


def load_resources(needs: frozenset, opts: SearchOptions, lm_opts: LmOptions, tokenizer: Tokenizer, device: str) -> Resources:
    """Load what the options name.

    Args:
      needs: names of the fields of :class:`Resources` that the method cannot do without; ``context_graph`` is loaded where it is
        among them and ``--context-file`` is given.
      opts, lm_opts: where everything is.
      tokenizer: the acoustic model's.
      device: where the search will run.

    Raises:
      UserError: a file is missing or damaged.
    """
    phrases = "context_graph" in needs and opts.context_file
    hlg = _hlg(opts) if "hlg" in needs else None
    return Resources(
        lm=load_lm(lm_opts, tokenizer.vocab_size, device, opts.lm_type) if "lm" in needs else None,
        ngram=_token_ngram(opts, tokenizer) if "ngram" in needs else None,
        graph=_graph(opts) if "graph" in needs else None,
        context_graph=_context_graph(opts, tokenizer, device) if phrases else None,
        hlg=hlg,
        word_lm=_word_lm(opts, hlg) if hlg is not None and "word_lm" in needs else None,
    )


def _graph(opts: SearchOptions) -> Fsa:
    return remove_epsilons(_read_graph(opts, "LG")).scaled(opts.ngram_lm_scale)


def _hlg(opts: SearchOptions) -> Fsa:
    return search_graph(_read_graph(opts, "HLG")).scaled(opts.hlg_scale)


def _read_graph(opts: SearchOptions, name: str) -> Fsa:
    folder = Path(opts.lang_dir)
    path = folder / f"{name}.fst.txt"
    if not path.is_file():
        raise UserError(f"no graph {path}: make it with compile_{name.lower()}, or name its folder with --lang-dir")
    return Fsa.read(path).with_words(read_symbols(folder / "words.txt"))


def _word_lm(opts: SearchOptions, hlg: Fsa) -> WordLm:
    folder, table = Path(opts.lm_dir), read_symbols(Path(opts.lang_dir) / "words.txt")
    grammar = folder / "G_4_gram.fst.txt"
    if grammar.is_file():
        if DISAMBIG not in table:
            raise UserError(f"{opts.lang_dir}/words.txt has no {DISAMBIG}, the label of the backoff arcs in {grammar}")
        return WordLm.of_graph(read_openfst_text(grammar, table[DISAMBIG], table), hlg, table)
    for name in ("4-gram.arpa", "4gram.arpa"):
        if (folder / name).is_file():
            return WordLm.of_graph(NgramLm.from_arpa(folder / name, table), hlg, table)
    raise UserError(f"no word 4-gram {grammar}, nor 4-gram.arpa there: make it, or name its folder with --lm-dir")


def _token_ngram(opts: SearchOptions, tokenizer: Tokenizer) -> NgramLm:
    folder, symbols = Path(opts.lang_dir), {piece: i for i, piece in enumerate(tokenizer.pieces)}
    arpa, graph = folder / f"{opts.tokens_ngram}gram.arpa", folder / f"{opts.tokens_ngram}gram.fst.txt"
    if arpa.is_file():
        return NgramLm.from_arpa(arpa, symbols)
    if graph.is_file():
        return read_openfst_text(graph, opts.backoff_id, symbols)
    raise UserError(f"neither {arpa} nor {graph} exists: make the token {opts.tokens_ngram}-gram, or name its folder with --lang-dir")


def _context_graph(opts: SearchOptions, tokenizer: Tokenizer, device: str) -> ContextGraph:
    try:
        lines = Path(opts.context_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read --context-file {opts.context_file}: {e}") from e
    phrases: List[str] = [" ".join(line.split()) for line in lines if line.strip()]
    if not phrases:
        raise UserError(f"--context-file {opts.context_file} has no phrases")
    for phrase in phrases:
        unknown = tokenizer.unknown_characters(phrase)
        if unknown:
            raise UserError(f"--context-file {opts.context_file}: the tokens cannot spell {unknown!r} of {phrase!r}; is its case right?")
    return ContextGraph(tokenizer.encode(phrases), opts.context_score, torch.device(device))
