"""Names of the search options that several methods use."""

from asr_core.decoding.options import (
    BiasingOptions,
    DistributionOptions,
    FastBeamLimits,
    PathOptions,
    names_of,
)

DISTRIBUTION = names_of(DistributionOptions)
BIASING = names_of(BiasingOptions)
BEAM = DISTRIBUTION | {"beam_size"}
FAST_BEAM = names_of(FastBeamLimits, DistributionOptions) | {"ilme_scale"}
FAST_BEAM_PATHS = FAST_BEAM | names_of(PathOptions)
# Language models of the *_lm_shallow_fusion and *_LODR methods
NEURAL_LM = frozenset({"lm_type", "lm_scale", "use_shallow_fusion"})
TOKEN_NGRAM = frozenset({"tokens_ngram", "backoff_id", "lang_dir"})
# Language models of the methods that can do without
OPTIONAL_LMS = frozenset(
    {
        "lm_type",
        "lm_scale",
        "lodr_ngram",
        "lodr_lm_scale",
        "backoff_id",
        "word_ngram",
        "word_ngram_scale",
        "word_score",
        "unk_offset",
    }
)
LG = frozenset({"ngram_lm_scale", "lang_dir"})
LATTICE = names_of(DistributionOptions, PathOptions) | {
    "search_beam",
    "output_beam",
    "min_active_states",
    "max_active_states",
    "graph_backend",
}
HLG = LATTICE | {"hlg_scale", "lang_dir"}
