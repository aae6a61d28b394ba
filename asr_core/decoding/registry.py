"""Decoding methods by name."""

import dataclasses
import logging
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from torch import Tensor

from asr_core.decoding.beam_options import FastBeamOptions, NbestOptions
from asr_core.decoding.ctc import greedy as ctc
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.methods import beam as beams
from asr_core.decoding.methods import graph as graphs
from asr_core.decoding.options import SearchOptions, check_search
from asr_core.decoding.resources import Resources
from asr_core.decoding.transducer.fast_beam import StreamingFastBeamSearch, fast_beam_search
from asr_core.decoding.transducer.fast_beam_nbest import fast_beam_nbest, fast_beam_oracle_nbest
from asr_core.lm.options import LmOptions
from asr_core.utils.errors import UserError


class Job(NamedTuple):
    """A batch to search.

    Attributes:
      model: an AsrModel in evaluation mode, or a scripted one.
      encoder_out: (N, T, C).
      lens: (N,) int64.
      opts: search options.
      resources: what the method needs besides.
      references: token ids of the transcripts, or their words, for oracles.
    """

    model: Any
    encoder_out: Tensor
    lens: Tensor
    opts: SearchOptions
    resources: Resources = Resources()
    references: Optional[Sequence[Sequence[Any]]] = None


class Method(NamedTuple):
    """A decoding method.

    Attributes:
      search: a batch -> its hypotheses by name; a method of one answer calls it "".
      uses: names of the search options that it heeds.
      needs: fields of :class:`~asr_core.decoding.resources.Resources` that it works with, of which only ``context_graph`` may be
        missing; ``fusion``, those of ``lm``, ``lodr`` and ``words`` that the options name; ``references``, the transcripts in tokens, or
        ``word_references``, in words; and ``attention_decoder``, that head.
      streaming: (model, options, resources) -> an object with ``new_stream()`` and ``advance(streams, encoder_out,
        encoder_out_lens)``, whose streams have ``hypothesis()``; None where the method cannot stream.
      nbest: a batch -> for each utterance its hypotheses, the best first and no two with the same tokens; None where the method
        has no such list.
      head: the model's head that it searches, ``transducer`` or ``ctc``.
    """

    search: Callable[[Job], Dict[str, List[Hypothesis]]]
    uses: frozenset
    needs: frozenset = frozenset()
    streaming: Optional[Callable[[Any, SearchOptions, Resources], Any]] = None
    nbest: Optional[Callable[[Job], List[List[Hypothesis]]]] = None
    head: str = "transducer"


def _ctc_greedy(job: Job) -> Dict[str, List[Hypothesis]]:
    return {"": ctc.ctc_greedy_search(job.model, job.encoder_out, job.lens, job.opts)}


def fast_options(opts: SearchOptions, ilme_scale: float = 0.0) -> FastBeamOptions:
    """Options of fast beam search; ``ilme_scale`` where none was given."""
    scale = ilme_scale if opts.ilme_scale is None else opts.ilme_scale
    return FastBeamOptions(
        beam=opts.beam,
        max_contexts=opts.max_contexts,
        max_states=opts.max_states,
        blank_penalty=opts.blank_penalty,
        temperature=opts.temperature,
        ilme_scale=scale,
    )


def _fast(job: Job) -> Dict[str, List[Hypothesis]]:
    return {
        "": fast_beam_search(
            job.model, job.encoder_out, job.lens, fast_options(job.opts), job.resources.graph
        )
    }


def _fast_lists(job: Job, num_best: int = 0) -> List[List[Hypothesis]]:
    graph, o = job.resources.graph, job.opts
    opts = fast_options(o, 0.1 if graph is None else 0.0)
    return fast_beam_nbest(
        job.model,
        job.encoder_out,
        job.lens,
        opts,
        graph,
        NbestOptions(num_paths=o.num_paths, scale=o.nbest_scale, num_best=num_best),
    )


def _fast_oracle_lists(job: Job, num_best: int = 0) -> List[List[Hypothesis]]:
    o, opts = job.opts, fast_options(job.opts, 0.1)
    return fast_beam_oracle_nbest(
        job.model,
        job.encoder_out,
        job.lens,
        job.references,
        opts,
        NbestOptions(num_paths=o.num_paths, scale=o.nbest_scale, num_best=num_best),
    )


def _first_of(
    lists: Callable[[Job, int], List[List[Hypothesis]]],
) -> Callable[[Job], Dict[str, List[Hypothesis]]]:
    """A method of one answer: the first of each list."""
    return lambda job: {"": [hypotheses[0] for hypotheses in lists(job, 1)]}


_ADJUST = ("blank_penalty", "temperature")
_BEAM = ("beam_size", *_ADJUST)
_FAST = ("beam", "max_contexts", "max_states", "ilme_scale", *_ADJUST)
_NBEST = (*_FAST, "num_paths", "nbest_scale")
_ILME = (*_BEAM, "ilme_scale")
_LM = (*_ILME, "lm_type", "lm_scale", "use_shallow_fusion")
_LODR = ("ngram_lm_scale", "tokens_ngram", "backoff_id", "lang_dir")
_PHRASES = ("context_file", "context_score")
_WORDS = ("word_ngram", "word_ngram_scale", "word_score", "unk_offset")
_FUSION = ("lm_type", "lm_scale", "lodr_ngram", "lodr_lm_scale", "backoff_id", *_WORDS, *_PHRASES)
_GRAPH = ("ngram_lm_scale", "lang_dir")
_FRAMES = (
    "search_beam",
    "output_beam",
    "min_active_states",
    "max_active_states",
    "graph_backend",
    "num_paths",
    "nbest_scale",
    *_ADJUST,
)
_HLG = (*_FRAMES, "hlg_scale", "lang_dir")


def _method(
    search: Callable[[Job], Dict[str, List[Hypothesis]]],
    uses: Sequence[str],
    needs: Sequence[str] = (),
    streaming: Any = None,
    nbest: Any = None,
) -> Method:
    return Method(search, frozenset(uses), frozenset(needs), streaming, nbest)


def _ctc_graph(
    search: Callable[[Job], Dict[str, List[Hypothesis]]],
    uses: Sequence[str],
    needs: Sequence[str] = (),
    nbest: Any = None,
) -> Method:
    return Method(search, frozenset(uses), frozenset(needs), nbest=nbest, head="ctc")


def _stream_fast(model: Any, o: SearchOptions, _: Resources) -> Any:
    return StreamingFastBeamSearch(model, fast_options(o))


METHODS: Dict[str, Method] = {
    "greedy_search": _method(
        beams.greedy, ("max_sym_per_frame", *_ADJUST, *_PHRASES), ["context_graph"], beams.stream_greedy
    ),
    "beam_search": _method(beams.graves_beam, _BEAM, nbest=beams.graves_lists),
    "modified_beam_search": _method(
        beams.modified, (*_ILME, *_PHRASES), ["context_graph"], beams.stream_modified, beams.modified_lists
    ),
    "modified_beam_search_lm_shallow_fusion": _method(
        beams.modified, _LM, ["lm"], nbest=beams.modified_lists
    ),
    "modified_beam_search_LODR": _method(
        beams.modified,
        (*_LM, *_LODR, *_PHRASES),
        ["lm", "ngram", "context_graph"],
        nbest=beams.modified_lists,
    ),
    "modified_beam_search_lm_rescore": _method(
        beams.rescored, (*_BEAM, "lm_type", "use_shallow_fusion"), ["lm"]
    ),
    "modified_beam_search_lm_rescore_LODR": _method(
        beams.rescored,
        (*_BEAM, "lm_type", "use_shallow_fusion", "tokens_ngram", "backoff_id", "lang_dir"),
        ["lm", "ngram"],
    ),
    "alignment_length_sync_search": _method(
        beams.alignment_length_sync,
        (*_ILME, *_FUSION, "alsd_merge"),
        ["context_graph", "fusion"],
        nbest=beams.alignment_length_sync_lists,
    ),
    "fast_beam_search": _method(_fast, _FAST, streaming=_stream_fast),
    "fast_beam_search_LG": _method(_fast, (*_FAST, *_GRAPH), ["graph"]),
    "fast_beam_search_nbest": _method(_first_of(_fast_lists), _NBEST, nbest=_fast_lists),
    "fast_beam_search_nbest_LG": _method(
        _first_of(_fast_lists), (*_NBEST, *_GRAPH), ["graph"], nbest=_fast_lists
    ),
    "fast_beam_search_nbest_oracle": _method(
        _first_of(_fast_oracle_lists), _NBEST, ["references"], nbest=_fast_oracle_lists
    ),
    "ctc-greedy-search": _method(
        _ctc_greedy,
        _ADJUST,
        streaming=lambda model, o, _: ctc.StreamingCtcGreedySearch(model, o),
    )._replace(head="ctc"),
    "ctc-prefix-beam-search": _method(
        beams.prefix, (*_BEAM, *_PHRASES), ["context_graph"], beams.stream_prefix, beams.prefix_lists
    )._replace(head="ctc"),
    "ctc-prefix-beam-search-shallow-fusion": _method(
        beams.prefix, (*_BEAM, *_FUSION), ["context_graph", "fusion"], nbest=beams.prefix_lists
    )._replace(head="ctc"),
    "ctc-decoding": _ctc_graph(graphs.one_best, _FRAMES, nbest=graphs.nbest_lists),
    "1best": _ctc_graph(graphs.one_best, _HLG, ["hlg"], graphs.nbest_lists),
    "nbest": _ctc_graph(graphs.nbest, _HLG, ["hlg"], graphs.nbest_lists),
    "nbest-oracle": _ctc_graph(graphs.nbest_oracle, _HLG, ["hlg", "word_references"], graphs.oracle_lists),
    "nbest-rescoring": _ctc_graph(graphs.nbest_rescoring, (*_HLG, "lm_dir"), ["hlg", "word_lm"]),
    "whole-lattice-rescoring": _ctc_graph(
        graphs.whole_lattice_rescoring, (*_HLG, "lm_dir"), ["hlg", "word_lm"]
    ),
    "attention-decoder-rescoring-no-ngram": _ctc_graph(
        graphs.attention_rescoring, _FRAMES, ["attention_decoder"]
    ),
    "attention-decoder-rescoring-with-ngram": _ctc_graph(
        graphs.attention_rescoring_with_ngram, (*_HLG, "lm_dir"), ["hlg", "word_lm", "attention_decoder"]
    ),
    "ctc-prefix-beam-search-attention-decoder-rescoring": _ctc_graph(
        graphs.prefix_attention_rescoring, _BEAM, ["attention_decoder"]
    ),
}


ALIASES = {
    "alsd": "alignment_length_sync_search",
    "ctc-prefix-beam-search-shallow-fussion": "ctc-prefix-beam-search-shallow-fusion",  # as icefall spells it
}


def get_method(opts: SearchOptions) -> Method:
    """The method that ``opts.decoding_method`` names.

    Raises:
      UserError: there is none of that name, or its options make no sense.
    """
    check_search(opts)
    name = ALIASES.get(opts.decoding_method, opts.decoding_method)
    if name not in METHODS:
        raise UserError(f"unknown decoding method {opts.decoding_method!r}; known: {', '.join(METHODS)}")
    return METHODS[name]


def streaming_search(model: Any, opts: SearchOptions, resources: Resources = Resources()) -> Any:
    """The streaming search that ``opts`` name, see :class:`Method`.

    Raises:
      UserError: the method is unknown or cannot stream.
    """
    return check_streaming(opts)(model, opts, resources)


def check_streaming(opts: SearchOptions) -> Callable[[Any, SearchOptions, Resources], Any]:
    """What makes the streaming search that ``opts`` name; raises as :func:`streaming_search`."""
    method = get_method(opts)
    if method.streaming is None:
        able = ", ".join(name for name, m in METHODS.items() if m.streaming is not None)
        raise UserError(f"{opts.decoding_method} cannot stream; these can: {able}")
    return method.streaming


def resolve_method(
    opts: SearchOptions, usual: SearchOptions = SearchOptions(), lm: LmOptions = LmOptions()
) -> SearchOptions:
    """``opts`` with the method that is meant, by its usual name; options without effect get a line in the log.

    Args:
      opts: what the user chose.
      usual: the program's defaults, which no one chose.
      lm: what the user chose of a neural language model.
    """
    opts = dataclasses.replace(opts, decoding_method=ALIASES.get(opts.decoding_method, opts.decoding_method))
    if opts.use_shallow_fusion and opts.decoding_method == "modified_beam_search":
        opts = dataclasses.replace(opts, decoding_method="modified_beam_search_lm_shallow_fusion")
        logging.info("--use-shallow-fusion: decoding with %s", opts.decoding_method)
    method = get_method(opts)
    idle = _changed(opts, usual, method.uses | {"decoding_method", "lang_dir"})
    if not method.needs & {"lm", "fusion"}:
        idle += _changed(lm, LmOptions())
    if idle:
        flags = ", ".join("--" + name.replace("_", "-") for name in idle)
        logging.info("%s does not use %s", opts.decoding_method, flags)
    if {"lm_scale", "ngram_lm_scale"} <= method.uses and opts.ngram_lm_scale >= 0:
        logging.warning(
            "--ngram-lm-scale %s: the token n-gram is not subtracted; give a negative weight",
            opts.ngram_lm_scale,
        )
    return opts


def _changed(opts: Any, usual: Any, known: frozenset = frozenset()) -> List[str]:
    """Names of the fields that are not as ``usual``, but for ``known`` ones."""
    return [
        f.name
        for f in dataclasses.fields(opts)
        if f.name not in known and getattr(opts, f.name) != getattr(usual, f.name)
    ]
