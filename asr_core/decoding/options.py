"""Options of decoding."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Optional

from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, option


@dataclass
class SearchOptions:
    """Search: from encoder output to tokens."""

    decoding_method: str = option(
        "greedy_search",
        "greedy_search, beam_search, modified_beam_search[_lm_shallow_fusion|_LODR|_lm_rescore|_lm_rescore_LODR], alsd, "
        "fast_beam_search[_LG|_nbest|_nbest_LG|_nbest_oracle]; with CTC ctc-greedy-search, ctc-prefix-beam-search[-shallow-fusion|"
        "-attention-decoder-rescoring], ctc-decoding, 1best, nbest, nbest-oracle, nbest-rescoring, whole-lattice-rescoring, "
        "attention-decoder-rescoring-no-ngram, attention-decoder-rescoring-with-ngram: see docs/decoding.md",
    )
    beam_size: int = option(
        4, "hypotheses kept by beam_search, modified_beam_search*, alsd and ctc-prefix-beam-search*"
    )
    beam: float = option(
        20.0,
        "fast_beam_search* drops what is worse than the best by more than this (natural log-probability)",
    )
    ngram_lm_scale: float = option(
        0.01,
        "weight of the graph's scores in *_LG; weight of the token n-gram in *_LODR, give a negative one",
    )
    max_contexts: int = option(8, "predictor contexts that fast_beam_search* keeps per frame")
    max_states: int = option(64, "states that fast_beam_search* keeps per frame")
    max_sym_per_frame: int = option(1, "tokens that greedy search may emit at one frame")
    num_paths: int = option(200, "paths that *nbest* and attention-decoder-rescoring-* draw from the lattice")
    nbest_scale: float = option(
        0.5, "the lattice's scores are multiplied by it while paths are drawn: smaller, more various"
    )
    ilme_scale: Optional[float] = option(
        None,
        "weight of the internal language model that is subtracted by beam searches with a transducer; "
        "left out: 0.1 for fast_beam_search_nbest and fast_beam_search_nbest_oracle, else 0",
    )
    use_shallow_fusion: bool = option(False, "modified_beam_search with the neural language model's scores")
    lm_type: str = option(
        "rnn", "the neural language model's kind", choices=("rnn", "transformer"), aliases=("--nnlm-type",)
    )
    lm_scale: float = option(0.3, "weight of the neural language model", aliases=("--nnlm-scale",))
    tokens_ngram: int = option(2, "order n of the token n-gram of *_LODR, <lang-dir>/<n>gram.arpa")
    backoff_id: int = option(
        500,
        "id of #0, the label of back-off arcs, where the token n-gram is a graph, <lang-dir>/<n>gram.fst.txt",
    )
    lang_dir: str = option(
        "data/lang_bpe_500", "folder with the graphs LG.fst.txt and HLG.fst.txt, words.txt, and token n-grams"
    )
    lodr_ngram: Optional[str] = option(
        None,
        "token n-gram, .arpa or .fst.txt, for alsd and ctc-prefix-beam-search-shallow-fusion, weighted by --lodr-lm-scale",
    )
    lodr_lm_scale: float = option(0.0, "weight of --lodr-ngram; below 0 it is subtracted")
    word_ngram: str = option(
        "", "word n-gram, .arpa or .arpa.gz, for alsd and ctc-prefix-beam-search-shallow-fusion"
    )
    word_ngram_scale: float = option(0.5, "weight of --word-ngram")
    word_score: float = option(1.5, "bonus for each word, with --word-ngram")
    unk_offset: float = option(
        -10.0, "added to the logarithm to base 10 of the probability of words that --word-ngram does not know"
    )
    context_file: str = option(
        "",
        "phrases to favour, one a line, for greedy_search, modified_beam_search, *_LODR, alsd, ctc-prefix-*",
    )
    context_score: float = option(2.0, "bonus for each token of a phrase of --context-file")
    blank_penalty: float = option(
        0.0, "subtracted from the score of blank: above 0 fewer deletions, more insertions"
    )
    temperature: float = option(1.0, "logits are divided by it before the softmax")
    alsd_merge: bool = option(
        True, "alsd adds up the probabilities of hypotheses with equal tokens; 0: each is one alignment"
    )
    hlg_scale: float = option(
        0.6, "weight of the scores of the graph HLG.fst.txt, which CTC methods with a lexicon search"
    )
    lm_dir: str = option(
        "data/lm",
        "folder with the word 4-gram of lattice rescoring: G_4_gram.fst.txt, 4-gram.arpa or 4gram.arpa",
    )
    search_beam: float = option(
        20.0, "graph search with CTC drops states that are worse than a frame's best by more than this"
    )
    output_beam: float = option(
        8.0, "the lattice of a graph search keeps what is worse than the best path by at most this"
    )
    min_active_states: int = option(
        30, "states that a graph search keeps at each frame at least, however bad"
    )
    max_active_states: int = option(10000, "states that a graph search keeps at each frame at most")
    graph_backend: str = option(
        "auto",
        "what searches graphs with CTC: own, k2, or auto: k2 on a GPU if it is installed",
        choices=("auto", "own", "k2"),
    )


@dataclass
class StreamingSearchOptions:
    """Search: from encoder output to tokens, chunk by chunk."""

    decoding_method: str = option(
        "greedy_search",
        "greedy_search, modified_beam_search, fast_beam_search, ctc-greedy-search or ctc-prefix-beam-search",
    )
    num_active_paths: int = option(
        4, "hypotheses kept by modified_beam_search and ctc-prefix-*", aliases=("--num_active_paths",)
    )
    beam: float = option(
        4.0, "fast_beam_search drops what is worse than the best by more than this (natural log-probability)"
    )
    max_contexts: int = option(4, "predictor contexts that fast_beam_search keeps per frame")
    max_states: int = option(32, "states that fast_beam_search keeps per frame")
    context_file: str = option(
        "", "phrases to favour, one a line, for greedy_search, modified_beam_search, ctc-prefix-beam-search"
    )
    context_score: float = option(2.0, "bonus for each token of a phrase of --context-file")
    blank_penalty: float = option(
        0.0, "subtracted from the score of blank: above 0 fewer deletions, more insertions"
    )
    temperature: float = option(1.0, "logits are divided by it before the softmax")
    num_decode_streams: int = option(2000, "streams decoded in parallel")
    label: str = option("", "appended to the names of the result files")

    def search_options(self) -> SearchOptions:
        """The same in the terms of :class:`SearchOptions`."""
        return dataclasses.replace(from_params(SearchOptions, self), beam_size=self.num_active_paths)


def check_search(opts: SearchOptions) -> None:
    """Refuse values that no search can work with.

    Raises:
      UserError: naming the option.
    """
    if opts.beam_size < 1:
        raise UserError(f"--beam-size (or --num-active-paths) must be at least 1, got {opts.beam_size}")
    for name in (
        "max_sym_per_frame",
        "max_contexts",
        "max_states",
        "num_paths",
        "min_active_states",
        "max_active_states",
    ):
        if getattr(opts, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(opts, name)}")
    for name in ("beam", "nbest_scale", "search_beam", "output_beam"):
        if not getattr(opts, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, got {getattr(opts, name)}")
    if not 0 < opts.temperature < float("inf"):
        raise UserError(f"--temperature must be above 0 and finite, got {opts.temperature}")
    for field in dataclasses.fields(opts):
        value = getattr(opts, field.name)
        if isinstance(value, float) and not (
            math.isfinite(value) or field.name in ("beam", "search_beam", "output_beam")
        ):
            raise UserError(f"--{field.name.replace('_', '-')} must be a finite number, got {value}")
