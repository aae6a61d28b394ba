"""What searches need besides the model: language models, graphs, phrases to favour."""

import logging
from pathlib import Path
from typing import Any, List, NamedTuple, Optional

import torch

from asr_core.decoding.graph.ctc_topology import search_graph
from asr_core.decoding.graph.epsilon_removal import remove_epsilons
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.word_lm import WordLm
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.decoding.scorers.word_ngram import WordNgramScorer, WordWeights
from asr_core.lm.grammar_fst import read_openfst_text
from asr_core.lm.kenlm_file import is_kenlm_binary, read_ngram
from asr_core.lm.ngram import NgramLm
from asr_core.lm.options import LmOptions
from asr_core.lm.symbols import BOS, DISAMBIG, EOS, EPS, UNKNOWN, read_symbols
from asr_core.text.tokenizer import WORD_START, Tokenizer
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
      lodr: n-gram over token ids with a weight of its own.
      words: a word n-gram that scores tokens.
    """

    lm: Optional[Any] = None
    ngram: Optional[NgramLm] = None
    graph: Optional[Fsa] = None
    context_graph: Optional[ContextGraph] = None
    hlg: Optional[Fsa] = None
    word_lm: Optional[WordLm] = None
    lodr: Optional[NgramLm] = None
    words: Optional[WordNgramScorer] = None


def load_resources(
    needs: frozenset, opts: SearchOptions, lm_opts: LmOptions, tokenizer: Tokenizer, device: str
) -> Resources:
    """Load what the options name.

    Args:
      needs: names of the fields of :class:`Resources` that the method cannot do without; ``context_graph`` is loaded where it is
        among them and ``--context-file`` is given. With ``fusion`` whatever language models the options name.
      opts, lm_opts: where everything is.
      tokenizer: the acoustic model's.
      device: where the search will run.

    Raises:
      UserError: a file is missing or damaged.
    """
    phrases = "context_graph" in needs and opts.context_file
    hlg = _hlg(opts) if "hlg" in needs else None
    fusion = "fusion" in needs
    neural = (
        "lm" in needs or fusion and wants_neural_lm(opts, lm_opts.lm_exp_dir, lm_opts.transformer_lm_exp_dir)
    )
    if (
        fusion
        and not (neural or opts.lodr_ngram or opts.word_ngram)
        and "shallow-fusion" in opts.decoding_method
    ):
        logging.warning(
            "no language model is given: neither --lm-exp-dir with an --lm-scale, nor --lodr-ngram, nor --word-ngram"
        )
    elif fusion and not neural and (lm_opts.lm_exp_dir or lm_opts.transformer_lm_exp_dir):
        logging.warning("the neural language model has no effect with --lm-scale 0")
    if phrases and opts.context_score == 0:
        logging.warning("--context-file has no effect with --context-score 0")
    return Resources(
        lm=load_lm(lm_opts, tokenizer.vocab_size, device, opts.lm_type) if neural else None,
        ngram=_token_ngram(opts, tokenizer) if "ngram" in needs else None,
        graph=_graph(opts) if "graph" in needs else None,
        context_graph=_context_graph(opts, tokenizer, device) if phrases else None,
        hlg=hlg,
        word_lm=_word_lm(opts, hlg) if hlg is not None and "word_lm" in needs else None,
        lodr=_lodr(opts, tokenizer) if fusion and opts.lodr_ngram else None,
        words=_words(opts, tokenizer, device) if fusion and opts.word_ngram else None,
    )


def wants_neural_lm(opts: SearchOptions, *folders: Optional[str]) -> bool:
    """Whether a method that can do without a neural language model is to have one, whose folder may be among ``folders``."""
    return opts.lm_scale != 0 and any(folders)


def _graph(opts: SearchOptions) -> Fsa:
    return remove_epsilons(_read_graph(opts, "LG")).scaled(opts.ngram_lm_scale)


def _hlg(opts: SearchOptions) -> Fsa:
    return search_graph(_read_graph(opts, "HLG")).scaled(opts.hlg_scale)


def _read_graph(opts: SearchOptions, name: str) -> Fsa:
    folder = Path(opts.lang_dir)
    path = folder / f"{name}.fst.txt"
    if not path.is_file():
        raise UserError(
            f"no graph {path}: make it with compile_{name.lower()}, or name its folder with --lang-dir"
        )
    return Fsa.read(path).with_words(read_symbols(folder / "words.txt"))


def _word_lm(opts: SearchOptions, hlg: Fsa) -> WordLm:
    folder, table = Path(opts.lm_dir), read_symbols(Path(opts.lang_dir) / "words.txt")
    grammar = folder / "G_4_gram.fst.txt"
    if grammar.is_file():
        if DISAMBIG not in table:
            raise UserError(
                f"{opts.lang_dir}/words.txt has no {DISAMBIG}, the label of the backoff arcs in {grammar}"
            )
        return WordLm.of_graph(read_openfst_text(grammar, table[DISAMBIG], table), hlg, table)
    for name in ("4-gram.arpa", "4gram.arpa"):
        if (folder / name).is_file():
            lm = NgramLm.from_arpa(folder / name, table)
            if not any(
                lm.is_known(i) for word, i in table.items() if word not in (EPS, BOS, EOS, DISAMBIG, *UNKNOWN)
            ):
                raise UserError(f"{folder / name} knows none of the words in {opts.lang_dir}/words.txt")
            return WordLm.of_graph(lm, hlg, table)
    raise UserError(
        f"no word 4-gram {grammar}, nor 4-gram.arpa there: make it, or name its folder with --lm-dir"
    )


def _lodr(opts: SearchOptions, tokenizer: Tokenizer) -> NgramLm:
    if opts.lodr_lm_scale == 0:
        logging.warning(
            "--lodr-ngram has no effect without --lodr-lm-scale; give a negative weight to subtract it"
        )
    path = Path(str(opts.lodr_ngram))
    if not path.is_file():
        raise UserError(f"no token n-gram --lodr-ngram {path}")
    return _read_ngram(path, opts, tokenizer)


def _words(opts: SearchOptions, tokenizer: Tokenizer, device: str) -> WordNgramScorer:
    weights = WordWeights(opts.word_ngram_scale, opts.word_score, opts.unk_offset)
    symbols = read_symbols(Path(opts.lang_dir) / "words.txt") if is_kenlm_binary(opts.word_ngram) else None
    lm = read_ngram(opts.word_ngram, symbols)
    if any(word.startswith(WORD_START) for word in lm.symbols):
        raise UserError(
            f"--word-ngram {opts.word_ngram} is an n-gram over tokens, not words: see --lodr-ngram"
        )
    return WordNgramScorer(lm, tokenizer.pieces, weights, torch.device(device))


def _read_ngram(path: Path, opts: SearchOptions, tokenizer: Tokenizer) -> NgramLm:
    symbols = {piece: i for i, piece in enumerate(tokenizer.pieces)}
    if path.name.endswith(".fst.txt"):
        return read_openfst_text(path, opts.backoff_id, symbols)
    lm = read_ngram(path, symbols)
    telling = [i for piece, i in symbols.items() if piece.startswith(WORD_START)] or list(symbols.values())[
        3:
    ]  # words may be tokens: "a"
    if not any(lm.is_known(i) for i in telling):
        raise UserError(
            f"{path} knows none of the model's tokens: an n-gram over tokens is needed here, not one over words"
        )
    return lm


def _token_ngram(opts: SearchOptions, tokenizer: Tokenizer) -> NgramLm:
    folder = Path(opts.lang_dir)
    arpa, graph = folder / f"{opts.tokens_ngram}gram.arpa", folder / f"{opts.tokens_ngram}gram.fst.txt"
    for path in (arpa, graph):
        if path.is_file():
            return _read_ngram(path, opts, tokenizer)
    raise UserError(
        f"neither {arpa} nor {graph} exists: make the token {opts.tokens_ngram}-gram, or name its folder with --lang-dir"
    )


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
            raise UserError(
                f"--context-file {opts.context_file}: the tokens cannot spell {unknown!r} of {phrase!r}; is its case right?"
            )
    return ContextGraph(tokenizer.encode(phrases), opts.context_score, torch.device(device))
