"""What searches need besides the model: language models, graphs, phrases to favour."""

from pathlib import Path
from typing import Any, List, NamedTuple, Optional

import torch

from asr_core.decoding.context_graph import ContextGraph
from asr_core.decoding.epsilons import remove_epsilons
from asr_core.decoding.fsa import Fsa
from asr_core.decoding.lm_loading import load_lm
from asr_core.decoding.options import SearchOptions
from asr_core.lm.grammar_fst import read_openfst_text
from asr_core.lm.ngram import NgramLm
from asr_core.lm.options import LmOptions
from asr_core.lm.symbols import read_symbols
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError


class Resources(NamedTuple):
    """What a search may need; None where it is not needed.

    Attributes:
      lm: neural language model over tokens.
      ngram: :class:`~asr_core.lm.ngram.NgramLm` over token ids.
      graph: decoding graph from tokens to words.
      context_graph: phrases to favour.
    """

    lm: Optional[Any] = None
    ngram: Optional[NgramLm] = None
    graph: Optional[Fsa] = None
    context_graph: Optional[ContextGraph] = None


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
    return Resources(
        lm=load_lm(lm_opts, tokenizer.vocab_size, device, opts.lm_type) if "lm" in needs else None,
        ngram=_token_ngram(opts, tokenizer) if "ngram" in needs else None,
        graph=_graph(opts) if "graph" in needs else None,
        context_graph=_context_graph(opts, tokenizer, device) if phrases else None,
    )


def _graph(opts: SearchOptions) -> Fsa:
    folder = Path(opts.lang_dir)
    if not (folder / "LG.fst.txt").is_file():
        raise UserError(f"no graph {folder / 'LG.fst.txt'}: make it with compile_lg, or name its folder with --lang-dir")
    graph = Fsa.read(folder / "LG.fst.txt").with_words(read_symbols(folder / "words.txt"))
    return remove_epsilons(graph).scaled(opts.ngram_lm_scale)


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
