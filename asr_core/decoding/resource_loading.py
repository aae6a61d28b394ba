"""Loading of the resources that a decoding method works with."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Set

import torch

from asr_core.decoding.graph.ctc_topology import search_graph
from asr_core.decoding.graph.epsilon_removal import remove_epsilons
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.graph.k2_graph import prepared_graph, read_k2_grammar, read_prepared_graph
from asr_core.decoding.graph.word_lm import WordLm
from asr_core.decoding.method import Method
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.resources import Resource, Resources
from asr_core.decoding.scorers.context_graph import ContextGraph
from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.decoding.scorers.phrases import read_phrases
from asr_core.decoding.scorers.word_ngram import WordNgramScorer, WordWeights
from asr_core.lm.grammar_fst import read_openfst_text
from asr_core.lm.kenlm_file import is_kenlm_binary, read_ngram
from asr_core.lm.neural import NeuralLm
from asr_core.lm.ngram import NgramLm
from asr_core.lm.options import LmOptions
from asr_core.lm.symbols import BOS, DISAMBIG, EOS, EPS, UNKNOWN, read_symbols
from asr_core.text.pieces import difference
from asr_core.text.tokenizer import WORD_START, Tokenizer, read_pieces
from asr_core.utils.errors import UserError

_FIRST_WORD = 3  # of a tokenizer's ids: those before are blank, <sos/eos> and <unk>


def load_resources(
    method: Method, opts: SearchOptions, lm: LmOptions, tokenizer: Tokenizer, device: torch.device
) -> Resources:
    """Load the resources that a method needs, and the optional ones that the options name.

    Args:
      method: the method.
      opts, lm: options that name the resources.
      tokenizer: the acoustic model's.
      device: device of the search.

    Raises:
      UserError: a file is missing or damaged.
    """
    wanted = set(method.needs | (method.optional & _named(opts, lm)))
    _warn(method, wanted, opts, lm)
    load = _Loader(opts, lm, tokenizer, device)
    hlg = load.hlg() if Resource.HLG in wanted else None
    return Resources(
        neural_lm=load.neural_lm() if Resource.NEURAL_LM in wanted else None,
        token_ngram=load.token_ngram() if Resource.TOKEN_NGRAM in wanted else None,
        lodr_ngram=load.lodr_ngram() if Resource.LODR_NGRAM in wanted else None,
        word_ngram=load.word_ngram() if Resource.WORD_NGRAM in wanted else None,
        context_graph=load.context_graph() if Resource.CONTEXT_GRAPH in wanted else None,
        lg=load.lg() if Resource.LG in wanted else None,
        hlg=hlg,
        word_lm=load.word_lm(hlg) if hlg is not None and Resource.WORD_LM in wanted else None,
    )


def names_neural_lm(opts: SearchOptions, lm: LmOptions) -> bool:
    """Return whether the options name a neural language model and give it a weight."""
    return opts.lm_scale != 0 and bool(lm.lm_exp_dir or lm.transformer_lm_exp_dir)


def _named(opts: SearchOptions, lm: LmOptions) -> Set[Resource]:
    """Return the optional resources that these options name."""
    named = {
        Resource.NEURAL_LM: names_neural_lm(opts, lm),
        Resource.LODR_NGRAM: bool(opts.lodr_ngram),
        Resource.WORD_NGRAM: bool(opts.word_ngram),
        Resource.CONTEXT_GRAPH: bool(opts.context_file),
    }
    return {resource for resource, is_named in named.items() if is_named}


def _warn(method: Method, wanted: Set[Resource], opts: SearchOptions, lm: LmOptions) -> None:
    """Warn about options that are probably a mistake."""
    if method.expects_one_of and not method.expects_one_of & wanted:
        logging.warning(
            "no language model is given: neither --lm-exp-dir with an --lm-scale, nor --lodr-ngram, "
            "nor --word-ngram"
        )
    elif Resource.NEURAL_LM in method.optional - wanted and (lm.lm_exp_dir or lm.transformer_lm_exp_dir):
        logging.warning("the neural language model has no effect with --lm-scale 0")
    if Resource.CONTEXT_GRAPH in wanted and opts.context_score == 0:
        logging.warning("--context-file has no effect with --context-score 0")
    if Resource.LODR_NGRAM in wanted and opts.lodr_lm_scale == 0:
        logging.warning(
            "--lodr-ngram has no effect without --lodr-lm-scale; give a negative weight to subtract it"
        )


@dataclass(frozen=True)
class _Loader:
    """Loads resources; its methods raise :class:`UserError` where a file is missing or damaged."""

    opts: SearchOptions
    lm: LmOptions
    tokenizer: Tokenizer
    device: torch.device

    def neural_lm(self) -> NeuralLm:
        size, pieces = self.tokenizer.vocab_size, self.tokenizer.pieces
        return load_lm(self.lm, size, self.device, self.opts.lm_type, pieces)

    def token_ngram(self) -> NgramLm:
        order, folder = self.opts.tokens_ngram, Path(self.opts.lang_dir)
        arpa, graph = folder / f"{order}gram.arpa", folder / f"{order}gram.fst.txt"
        for path in (arpa, graph):
            if path.is_file():
                return self._ngram_of_tokens(path)
        raise UserError(
            f"neither {arpa} nor {graph} exists: make the token {order}-gram, "
            "or name its folder with --lang-dir"
        )

    def lodr_ngram(self) -> NgramLm:
        path = Path(str(self.opts.lodr_ngram))
        if not path.is_file():
            raise UserError(f"no token n-gram --lodr-ngram {path}")
        return self._ngram_of_tokens(path)

    def _ngram_of_tokens(self, path: Path) -> NgramLm:
        symbols = {piece: i for i, piece in enumerate(self.tokenizer.pieces)}
        if path.name.endswith(".fst.txt"):
            self._check_tokens_beside(path)
            return read_openfst_text(path, self.opts.backoff_id, symbols)
        lm = read_ngram(path, symbols)
        # a token may be a word, too ("a"): only pieces that begin words show what the n-gram is of
        starts = [i for piece, i in symbols.items() if piece.startswith(WORD_START)]
        if not any(lm.is_known(i) for i in starts or list(symbols.values())[_FIRST_WORD:]):
            raise UserError(
                f"{path} knows none of the model's tokens: "
                "an n-gram over tokens is needed here, not one over words"
            )
        return lm

    def _check_tokens_beside(self, graph: Path) -> None:
        """Refuse a graph whose labels are, by the tokens.txt in its folder, other tokens."""
        if not (graph.parent / "tokens.txt").is_file():
            return
        pieces = read_pieces(graph.parent / "tokens.txt", self.tokenizer.vocab_size)
        if pieces[:1] == [EPS]:  # label 0 reads nothing, whatever it is called
            pieces = [*self.tokenizer.pieces[:1], *pieces[1:]]
        found = difference(pieces, self.tokenizer.pieces)
        if found:
            where = f"by {graph.parent / 'tokens.txt'}, {found}"
            raise UserError(
                f"{graph} was made for other tokens than the model's: {where}; "
                "give --lang-dir the folder of the model's tokenizer"
            )

    def word_ngram(self) -> WordNgramScorer:
        opts = self.opts
        weights = WordWeights(opts.word_ngram_scale, opts.word_score, opts.unk_offset)
        # KenLM's binary files leave the words out
        symbols = self._words() if is_kenlm_binary(opts.word_ngram) else None
        lm = read_ngram(opts.word_ngram, symbols)
        if any(word.startswith(WORD_START) for word in lm.symbols):
            raise UserError(
                f"--word-ngram {opts.word_ngram} is an n-gram over tokens, not words: see --lodr-ngram"
            )
        return WordNgramScorer(lm, self.tokenizer.pieces, weights, self.device)

    def context_graph(self) -> ContextGraph:
        opts = self.opts
        phrases = read_phrases(opts.context_file, self.tokenizer)
        return ContextGraph(phrases, opts.context_score, self.device, opts.context_scaling)

    def lg(self) -> Fsa:
        return remove_epsilons(self._graph("LG")).scaled(self.opts.ngram_lm_scale)

    def hlg(self) -> Fsa:
        return search_graph(self._graph("HLG")).scaled(self.opts.hlg_scale)

    def _graph(self, name: str) -> Fsa:
        path = prepared_graph(self.opts.lang_dir, name)
        if not path.is_file():
            raise UserError(
                f"no graph {path}: make it with compile_{name.lower()}, or name its folder with --lang-dir"
            )
        self._check_tokens_beside(path)
        # in our HLG, and not in icefall's, the labels of frames are tokens plus one
        return read_prepared_graph(path, k2_shift=name == "HLG").with_words(self._words())

    def _words(self) -> Dict[str, int]:
        return read_symbols(Path(self.opts.lang_dir) / "words.txt")

    def word_lm(self, hlg: Fsa) -> WordLm:
        folder, table = Path(self.opts.lm_dir), self._words()
        grammar = prepared_graph(folder, "G_4_gram")
        if grammar.suffix == ".pt":
            return WordLm.of_graph(read_k2_grammar(grammar, table), hlg, table)
        if grammar.is_file():
            if DISAMBIG not in table:
                raise UserError(
                    f"{self.opts.lang_dir}/words.txt has no {DISAMBIG}, "
                    f"the label of the back-off arcs in {grammar}"
                )
            return WordLm.of_graph(read_openfst_text(grammar, table[DISAMBIG], table), hlg, table)
        words = [i for word, i in table.items() if word not in (EPS, BOS, EOS, DISAMBIG, *UNKNOWN)]
        for path in (folder / "4-gram.arpa", folder / "4gram.arpa"):
            if path.is_file():
                lm = NgramLm.from_arpa(path, table)
                if not any(lm.is_known(i) for i in words):
                    raise UserError(f"{path} knows none of the words in {self.opts.lang_dir}/words.txt")
                return WordLm.of_graph(lm, hlg, table)
        raise UserError(
            f"no word 4-gram {grammar}, nor 4-gram.arpa there: make it, or name its folder with --lm-dir"
        )
