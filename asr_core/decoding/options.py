"""Options of decoding; light, so that ``--help`` needs no torch."""

import dataclasses
from dataclasses import dataclass
from typing import FrozenSet, Optional

from asr_core.utils.option_paths import PathKind
from asr_core.utils.options import from_params, option
from asr_core.utils.runtime import num_threads_option

LOG, LINEAR = CONTEXT_SCALINGS = ("log", "linear")
FLOAT32 = "float32"
DTYPES = (FLOAT32, "bfloat16", "float16")


@dataclass(frozen=True)
class MethodOptions:
    """Search: from encoder output to tokens."""

    decoding_method: str = option(
        "greedy_search",
        "greedy_search, beam_search, "
        "modified_beam_search[_lm_shallow_fusion|_LODR|_lm_rescore|_lm_rescore_LODR], alsd, "
        "fast_beam_search[_LG|_nbest|_nbest_LG|_nbest_oracle]; with CTC ctc-greedy-search, "
        "ctc-prefix-beam-search[-shallow-fusion|-attention-decoder-rescoring], ctc-decoding, "
        "1best, nbest, nbest-oracle, nbest-rescoring, whole-lattice-rescoring, "
        "attention-decoder-rescoring-no-ngram, attention-decoder-rescoring-with-ngram: see "
        "docs/decoding.md",
    )
    beam_size: int = option(
        4,
        "hypotheses kept by beam_search, modified_beam_search*, alsd and ctc-prefix-beam-search*",
        at_least=1,
        at_most=10_000,
    )
    max_sym_per_frame: int = option(
        1, "tokens that greedy search may emit at one frame", at_least=1, at_most=1000
    )
    alsd_merge: bool = option(
        True, "alsd adds up the probabilities of hypotheses with equal tokens; 0: each is one alignment"
    )


@dataclass(frozen=True)
class DistributionOptions:
    """Distribution of tokens: how it is changed before a search sees it."""

    blank_penalty: float = option(
        0.0, "subtracted from the score of blank: above 0 fewer deletions, more insertions"
    )
    temperature: float = option(1.0, "logits are divided by it before the softmax", above=0)


@dataclass(frozen=True)
class LanguageModelOptions:
    """Language models in the search: which, and their weights."""

    ilme_scale: Optional[float] = option(
        None,
        "weight of the internal language model that is subtracted by beam searches with a "
        "transducer; left out: 0.1 for fast_beam_search_nbest and fast_beam_search_nbest_oracle, "
        "else 0",
    )
    use_shallow_fusion: bool = option(False, "modified_beam_search with the neural language model's scores")
    lm_type: str = option(
        "rnn", "the neural language model's kind", choices=("rnn", "transformer"), aliases=("--nnlm-type",)
    )
    lm_scale: float = option(0.3, "weight of the neural language model", aliases=("--nnlm-scale",))
    ngram_lm_scale: float = option(
        0.01,
        "weight of the graph's scores in *_LG; weight of the token n-gram in *_LODR, give a negative one",
    )
    tokens_ngram: int = option(
        2, "order n of the token n-gram of *_LODR, <lang-dir>/<n>gram.arpa", at_least=1, at_most=20
    )
    backoff_id: int = option(
        500,
        "id of #0, the label of back-off arcs, where the token n-gram is a graph, <lang-dir>/<n>gram.fst.txt",
        at_least=0,
    )
    lodr_ngram: Optional[str] = option(
        None,
        "token n-gram, .arpa or .fst.txt, for alsd and ctc-prefix-beam-search-shallow-fusion, "
        "weighted by --lodr-lm-scale",
        path=PathKind.FILE,
    )
    lodr_lm_scale: float = option(0.0, "weight of --lodr-ngram; below 0 it is subtracted")
    word_ngram: str = option(
        "",
        "word n-gram, .arpa or .arpa.gz, for alsd and ctc-prefix-beam-search-shallow-fusion",
        path=PathKind.FILE,
    )
    word_ngram_scale: float = option(0.5, "weight of --word-ngram")
    word_score: float = option(1.5, "bonus for each word, with --word-ngram")
    unk_offset: float = option(
        -10.0, "added to the logarithm to base 10 of the probability of words that --word-ngram does not know"
    )


@dataclass(frozen=True)
class FastBeamLimits:
    """Fast beam search: beam and limits."""

    beam: float = option(
        20.0,
        "fast_beam_search* drops what is worse than the best by more than this (natural log-probability)",
        above=0,
        finite=False,
    )
    max_contexts: int = option(
        8, "predictor contexts that fast_beam_search* keeps per frame", at_least=1, at_most=1_000_000
    )
    max_states: int = option(
        64, "states that fast_beam_search* keeps per frame", at_least=1, at_most=1_000_000
    )


@dataclass(frozen=True)
class PathOptions:
    """Paths drawn from lattices."""

    num_paths: int = option(
        200,
        "paths that *nbest* and attention-decoder-rescoring-* draw from the lattice",
        at_least=1,
        at_most=1_000_000,
    )
    nbest_scale: float = option(
        0.5,
        "the lattice's scores are multiplied by it while paths are drawn: smaller, more various",
        above=0,
    )


@dataclass(frozen=True)
class BiasingOptions:
    """Contextual biasing."""

    context_file: str = option(
        "",
        "phrases to bias towards, one a line, for greedy_search, modified_beam_search, *_LODR, "
        "alsd, ctc-prefix-*",
        path=PathKind.FILE,
    )
    context_score: float = option(
        2.0, "bonus of the phrases of --context-file, in nats, see --context-scaling"
    )
    context_scaling: str = option(
        "log",
        "how the bonus grows with the tokens of a phrase: log, the score times ln(1 + tokens), so that "
        "long phrases do not appear where they were not said; or linear, the score for each token",
        choices=CONTEXT_SCALINGS,
    )


@dataclass(frozen=True)
class GraphOptions:
    """Graphs: their files, and how CTC methods search them."""

    lang_dir: str = option(
        "data/lang_bpe_500",
        "folder with the graphs LG.fst.txt and HLG.fst.txt, words.txt, and token n-grams",
        path=PathKind.PLACE,
    )
    lm_dir: str = option(
        "data/lm",
        "folder with the word 4-gram of lattice rescoring: G_4_gram.fst.txt, 4-gram.arpa or 4gram.arpa",
        path=PathKind.PLACE,
    )
    hlg_scale: float = option(
        0.6, "weight of the scores of the graph HLG.fst.txt, which CTC methods with a lexicon search"
    )
    search_beam: float = option(
        20.0,
        "graph search with CTC drops states that are worse than a frame's best by more than this",
        above=0,
        finite=False,
    )
    output_beam: float = option(
        8.0,
        "the lattice of a graph search keeps what is worse than the best path by at most this",
        above=0,
        finite=False,
    )
    min_active_states: int = option(
        30, "states that a graph search keeps at each frame at least, however bad", at_least=1
    )
    max_active_states: int = option(
        10000, "states that a graph search keeps at each frame at most", at_least=1
    )
    graph_backend: str = option(
        "auto",
        "what searches graphs with CTC: own, k2, or auto: k2 on a GPU if it is installed",
        choices=("auto", "own", "k2"),
    )


@dataclass(frozen=True)
class SearchOptions(
    GraphOptions,
    BiasingOptions,
    LanguageModelOptions,
    PathOptions,
    FastBeamLimits,
    DistributionOptions,
    MethodOptions,
):
    """All options of the search in whole utterances."""


# What --help lists, in this order.
SEARCH_GROUPS = (
    MethodOptions,
    DistributionOptions,
    FastBeamLimits,
    PathOptions,
    LanguageModelOptions,
    BiasingOptions,
    GraphOptions,
)


def names_of(*groups: type) -> FrozenSet[str]:
    """Return the names of the options of dataclasses such as :class:`FastBeamLimits`."""
    return frozenset(field.name for group in groups for field in dataclasses.fields(group))


@dataclass(frozen=True)
class ChunkwiseFastBeamLimits:
    """Fast beam search chunk by chunk: beam and limits, smaller than in whole utterances."""

    beam: float = option(
        4.0,
        "beam of fast_beam_search in log-probability: what is worse than the best by more is dropped",
        above=0,
        finite=False,
    )
    max_contexts: int = option(
        4, "predictor contexts that fast_beam_search keeps per frame", at_least=1, at_most=1_000_000
    )
    max_states: int = option(
        32, "states that fast_beam_search keeps per frame", at_least=1, at_most=1_000_000
    )


@dataclass(frozen=True)
class StreamingSearchOptions(ChunkwiseFastBeamLimits, BiasingOptions, DistributionOptions):
    """Search: from encoder output to tokens, chunk by chunk."""

    decoding_method: str = option(
        "greedy_search",
        "greedy_search, modified_beam_search, fast_beam_search, ctc-greedy-search or ctc-prefix-beam-search",
    )
    num_active_paths: int = option(
        4,
        "hypotheses kept by modified_beam_search and ctc-prefix-*",
        aliases=("--num_active_paths",),
        at_least=1,
        at_most=10_000,
    )
    num_decode_streams: int = option(2000, "streams decoded in parallel", at_least=1, at_most=1_000_000)
    label: str = option("", "appended to the names of the result files")

    def search_options(self) -> SearchOptions:
        """Return these options as :class:`SearchOptions`."""
        return dataclasses.replace(from_params(SearchOptions, vars(self)), beam_size=self.num_active_paths)


@dataclass(frozen=True)
class DeviceOptions:
    """Device, precision and number of CPU cores."""

    device: str = option(
        "auto", "where to compute; auto takes CUDA if there is any", choices=("auto", "cpu", "cuda")
    )
    dtype: str = option(
        FLOAT32,
        "precision of encoder, predictor and joiner; on GPUs bfloat16 is several times as fast. Scores "
        "are summed in float32",
        choices=DTYPES,
    )
    num_threads: int = num_threads_option()


def max_segment_option(default: float) -> float:
    """Declare ``--max-segment``, the field ``max_segment`` of the options of a program."""
    return option(
        default,
        "seconds; longer recordings are cut where it is quiet, unless the model streams: the memory of "
        "an encoder that sees everything grows with the square of the length",
        at_least=1,
        at_most=1_000_000,
    )


@dataclass(frozen=True)
class WindowOptions:
    """Long recordings: how they are cut."""

    max_segment: float = max_segment_option(60.0)


@dataclass(frozen=True)
class EncoderOptions:
    """Encoder: how it is computed."""

    compile: bool = option(
        False, "compile the encoder's layers by torch.compile, in some minutes at the first batches"
    )


@dataclass(frozen=True)
class TestOptions(DeviceOptions):
    """Test sets: data, output and scoring."""

    __test__ = False  # pytest: not a test

    bpe_model: str = option(
        "",
        "tokenizer: bpe.model, tokens.txt or a folder with one; left out: what training put into --exp-dir",
        aliases=("--tokens",),
        path=PathKind.EITHER,
    )
    test_sets: str = option(
        "", "names of test sets, separated by commas; left out: all of the corpus, or those of --test-cuts"
    )
    test_cuts: str = option(
        "", "other test sets: NAME=MANIFEST, separated by commas; files in --manifest-dir or elsewhere"
    )
    skip_scoring: bool = option(False, "write transcripts alone")
    score_characters: bool = option(False, "count characters instead of words")
