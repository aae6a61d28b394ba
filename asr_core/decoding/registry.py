"""Decoding methods by name."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional

from torch import Tensor

from asr_core.decoding.beam import StreamingBeamSearch, modified_beam_search
from asr_core.decoding.greedy import StreamingGreedySearch, greedy_search
from asr_core.decoding.hypothesis import Hypothesis
from asr_core.decoding.options import SearchOptions, check_search
from asr_core.utils.errors import UserError


class Method(NamedTuple):
    """A decoding method.

    Attributes:
      search: (model, encoder_out (N, T, C), encoder_out_lens (N,), options) -> N hypotheses.
      streaming: (model, options) -> an object with ``new_stream()`` and ``advance(streams, encoder_out, encoder_out_lens)``, whose
        streams have ``hypothesis()``; None where the method cannot stream.
      key: options -> the name of its results.
      name_part: (options, context size) -> what the names of its result files say about it.
      streaming_key: options -> the name of its streaming results.
    """

    search: Callable[[Any, Tensor, Tensor, SearchOptions], List[Hypothesis]]
    streaming: Optional[Callable[[Any, SearchOptions], Any]]
    key: Callable[[SearchOptions], str]
    name_part: Callable[[SearchOptions, int], str]
    streaming_key: Callable[[SearchOptions], str]


def _greedy(model: Any, encoder_out: Tensor, lens: Tensor, opts: SearchOptions) -> List[Hypothesis]:
    return greedy_search(model, encoder_out, lens, opts.max_sym_per_frame, opts.blank_penalty, opts.temperature)


def _modified_beam(model: Any, encoder_out: Tensor, lens: Tensor, opts: SearchOptions) -> List[Hypothesis]:
    return modified_beam_search(model, encoder_out, lens, opts.beam_size, opts.blank_penalty, opts.temperature)


METHODS: Dict[str, Method] = {
    "greedy_search": Method(
        search=_greedy,
        streaming=lambda model, o: StreamingGreedySearch(model, o.max_sym_per_frame, o.blank_penalty, o.temperature),
        key=lambda o: "greedy_search",
        name_part=lambda o, context_size: f"_context-{context_size}_max-sym-per-frame-{o.max_sym_per_frame}",
        streaming_key=lambda o: "greedy-search",
    ),
    "modified_beam_search": Method(
        search=_modified_beam,
        streaming=lambda model, o: StreamingBeamSearch(model, o.beam_size, o.blank_penalty, o.temperature),
        key=lambda o: f"modified_beam_search_beam-size-{o.beam_size}",
        name_part=lambda o, context_size: f"__modified_beam_search__beam-size-{o.beam_size}",
        streaming_key=lambda o: f"num-active-paths-{o.beam_size}",
    ),
}


def get_method(opts: SearchOptions) -> Method:
    """The method that ``opts.decoding_method`` names.

    Raises:
      UserError: there is none of that name, or its options make no sense.
    """
    check_search(opts)
    if opts.decoding_method not in METHODS:
        raise UserError(f"unknown decoding method {opts.decoding_method!r}; known: {', '.join(METHODS)}")
    return METHODS[opts.decoding_method]
