"""The parts of result files' names that decoding methods contribute.

The names follow icefall's, which users' scripts parse: separators differ between kinds of methods
and between file names and keys, the names of results in summaries.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Tuple

from asr_core.decoding.options import SearchOptions

# Makes a part of a name, such as "_ilme-scale-0.1", of the options, and of whether a neural
# language model is used
Part = Callable[[SearchOptions, bool], str]


def _phrases(opts: SearchOptions) -> str:
    if not opts.context_file:
        return ""
    usual = opts.context_scaling == SearchOptions.context_scaling
    return f"context-score-{opts.context_score}" + ("" if usual else f"-{opts.context_scaling}")


@dataclass(frozen=True)
class MethodNames:
    """Names of a method that has no settings.

    Attributes:
      phrases: whether the method can bias towards phrases.
    """

    phrases: bool = False

    def file_part(self, opts: SearchOptions, context_size: int, neural_lm: bool) -> str:
        """Return the part of the names of offline results' files.

        Args:
          opts: search options; their ``decoding_method`` is the method's name.
          context_size: context size of a stateless predictor; 0 without one.
          neural_lm: whether a neural language model is used.
        """
        return ""

    def key(self, opts: SearchOptions) -> str:
        """Return the name of offline results."""
        return opts.decoding_method + self._with("_", opts)

    def streaming_key(self, opts: SearchOptions) -> str:
        """Return the name of the results of decoding streams."""
        return opts.decoding_method.replace("_", "-") + self._with("_", opts)

    def _with(self, separator: str, opts: SearchOptions) -> str:
        part = _phrases(opts) if self.phrases else ""
        return separator + part if part else ""


@dataclass(frozen=True)
class GreedyNames(MethodNames):
    """Names of greedy search with a transducer."""

    def file_part(self, opts: SearchOptions, context_size: int, neural_lm: bool) -> str:
        """Return the part of the names of offline results' files."""
        context = f"_context-{context_size}" if context_size else ""
        return f"{context}_max-sym-per-frame-{opts.max_sym_per_frame}" + self._with("_", opts)


@dataclass(frozen=True)
class BeamNames(MethodNames):
    """Names of searches with a fixed number of hypotheses.

    Attributes:
      settings: parts of further settings of the search, for file names and keys.
      models: parts of language models, for file names.
    """

    settings: Tuple[Part, ...] = ()
    models: Tuple[Part, ...] = ()

    def file_part(self, opts: SearchOptions, context_size: int, neural_lm: bool) -> str:
        """Return the part of the names of offline results' files."""
        start = f"__{opts.decoding_method}__beam-size-{opts.beam_size}" + self._with("-", opts)
        return start + "".join(part(opts, neural_lm) for part in (*self.settings, *self.models))

    def key(self, opts: SearchOptions) -> str:
        """Return the name of offline results."""
        start = f"{opts.decoding_method}_beam-size-{opts.beam_size}" + self._with("_", opts)
        return start + "".join(part(opts, False) for part in self.settings)

    def streaming_key(self, opts: SearchOptions) -> str:
        """Return the name of the results of decoding streams."""
        return f"num-active-paths-{opts.beam_size}" + self._with("_", opts)


@dataclass(frozen=True)
class FastBeamNames(MethodNames):
    """Names of fast beam searches.

    Attributes:
      samples: whether paths are drawn from the lattice.
      graph: whether a graph is searched, whose scores have a weight.
    """

    samples: bool = False
    graph: bool = False

    def _part(self, opts: SearchOptions) -> str:
        part = f"_beam-{opts.beam}_max-contexts-{opts.max_contexts}_max-states-{opts.max_states}"
        if self.samples:
            part += sampling(opts)
        # icefall names the graph's weight only where paths are drawn
        if self.graph and (self.samples or opts.ngram_lm_scale != SearchOptions.ngram_lm_scale):
            part += f"_ngram-lm-scale-{opts.ngram_lm_scale}"
        return part + (f"_ilme-scale-{opts.ilme_scale}" if opts.ilme_scale is not None else "")

    def file_part(self, opts: SearchOptions, context_size: int, neural_lm: bool) -> str:
        """Return the part of the names of offline results' files."""
        return self._part(opts)

    def key(self, opts: SearchOptions) -> str:
        """Return the name of offline results."""
        return opts.decoding_method + self._part(opts)

    def streaming_key(self, opts: SearchOptions) -> str:
        """Return the name of the results of decoding streams."""
        return self._part(opts).lstrip("_")


@dataclass(frozen=True)
class GraphNames(MethodNames):
    """Names of searches over graphs with CTC.

    Attributes:
      lexicon: whether the graph is HLG, whose scores have a weight.
      samples: whether paths are drawn from the lattice.
    """

    lexicon: bool = False
    samples: bool = False

    def file_part(self, opts: SearchOptions, context_size: int, neural_lm: bool) -> str:
        """Return the part of the names of offline results' files."""
        weighted = self.lexicon and opts.hlg_scale != SearchOptions.hlg_scale
        part = f"_hlg-scale-{opts.hlg_scale}" if weighted else ""
        return part + (sampling(opts) if self.samples else "")


def sampling(opts: SearchOptions) -> str:
    """Name the drawing of paths from a lattice."""
    return f"_nbest-scale-{opts.nbest_scale}_num-paths-{opts.num_paths}"


def merging(opts: SearchOptions, neural_lm: bool) -> str:
    """Name ALSD without merging."""
    return "" if opts.alsd_merge else "_no-merging"


def internal_lm(opts: SearchOptions, neural_lm: bool) -> str:
    """Name the weight of the internal language model."""
    return f"_ilme-scale-{opts.ilme_scale}" if opts.ilme_scale else ""


def neural_lm_kind(opts: SearchOptions, neural_lm: bool) -> str:
    """Name a neural language model that rescores under many weights."""
    return f"_{opts.lm_type}-lm"


def weighted_neural_lm(opts: SearchOptions, neural_lm: bool) -> str:
    """Name a neural language model and its weight."""
    return f"_{opts.lm_type}-lm-scale-{opts.lm_scale}"


def token_ngram_kind(opts: SearchOptions, neural_lm: bool) -> str:
    """Name a token n-gram that is subtracted under many weights."""
    return f"_LODR-{opts.tokens_ngram}gram"


def weighted_token_ngram(opts: SearchOptions, neural_lm: bool) -> str:
    """Name a token n-gram and its weight."""
    return f"_LODR-{opts.tokens_ngram}gram-scale-{opts.ngram_lm_scale}"


def optional_lms(opts: SearchOptions, neural_lm: bool) -> str:
    """Name the loaded language models of a method for which they are optional."""
    part = weighted_neural_lm(opts, neural_lm) if neural_lm else ""
    if opts.lodr_ngram:
        part += f"_LODR-{Path(opts.lodr_ngram).name.split('.')[0]}-scale-{opts.lodr_lm_scale}"
    if opts.word_ngram:
        part += f"_word-ngram-scale-{opts.word_ngram_scale}_word-score-{opts.word_score}"
    return part
