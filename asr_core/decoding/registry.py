"""Decoding methods by name."""

import dataclasses
import logging
from typing import Any, Dict, FrozenSet, List

from asr_core.decoding.method import Head, MakeStreamingSearch, Method
from asr_core.decoding.methods import beam, ctc, fast_beam, graph
from asr_core.decoding.options import SearchOptions
from asr_core.decoding.protocol import ModelWithHeads, RecognitionModel, StreamingSearch
from asr_core.decoding.resources import Resource, Resources
from asr_core.lm.options import LmOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import check_values, flag

METHODS: Dict[str, Method] = {
    method.name: method for method in (*beam.METHODS, *fast_beam.METHODS, *ctc.METHODS, *graph.METHODS)
}
# Without these a result is another one than the user thinks. Other options are left in loops over
# methods, so those are only logged.
_NAMED_FILES = frozenset({"context_file", "lodr_ngram", "use_shallow_fusion", "word_ngram"})
ALIASES = {
    "alsd": "alignment_length_sync_search",
    "ctc-prefix-beam-search-shallow-fussion": "ctc-prefix-beam-search-shallow-fusion",  # icefall's spelling
}


def get_method(name: str) -> Method:
    """Look a method up by its name or an alias.

    Raises:
      UserError: there is no method of that name.
    """
    method = METHODS.get(ALIASES.get(name, name))
    if method is None:
        raise UserError(f"unknown decoding method {name!r}; known: {', '.join(METHODS)}")
    return method


def resolve_method(
    opts: SearchOptions, usual: SearchOptions = SearchOptions(), lm: LmOptions = LmOptions()
) -> SearchOptions:
    """Return ``opts`` with the method's usual name; log tuning options without effect.

    Args:
      opts: the user's choice.
      usual: the program's own defaults, as opposed to options of the user.
      lm: the user's choice of a neural language model.

    Raises:
      UserError: there is no such method, an option is out of its bounds, or a file was given that
        the method does not use.
    """
    check_values(opts)
    opts = dataclasses.replace(opts, decoding_method=get_method(opts.decoding_method).name)
    if opts.use_shallow_fusion and opts.decoding_method == beam.MODIFIED_BEAM_SEARCH.name:
        opts = dataclasses.replace(opts, decoding_method=beam.SHALLOW_FUSION.name)
        logging.info("--use-shallow-fusion: decoding with %s", opts.decoding_method)
    method = get_method(opts.decoding_method)
    idle = _changed(opts, usual, method.uses | {"decoding_method", "lang_dir"})
    for name in sorted(_NAMED_FILES.intersection(idle)):
        able = ", ".join(other.name for other in METHODS.values() if name in other.uses)
        raise UserError(f"{flag(name)} has no effect with {method.name}; these use it: {able}")
    if Resource.NEURAL_LM not in method.needs | method.optional:
        idle += _changed(lm, LmOptions())
    if idle:
        logging.info("%s does not use %s", method.name, ", ".join(map(flag, idle)))
    if {"lm_scale", "ngram_lm_scale"} <= method.uses and opts.ngram_lm_scale >= 0:
        logging.warning(
            "--ngram-lm-scale %s: the token n-gram is not subtracted; give a negative weight",
            opts.ngram_lm_scale,
        )
    return opts


def _changed(opts: object, usual: object, except_for: FrozenSet[str] = frozenset()) -> List[str]:
    """Return the names of the fields in which two dataclasses differ."""
    names = (field.name for field in dataclasses.fields(opts))  # type: ignore[arg-type]  # of a dataclass
    return [n for n in names if n not in except_for and getattr(opts, n) != getattr(usual, n)]


def check_streaming(method: Method) -> MakeStreamingSearch:
    """Return the function that builds a method's streaming search.

    Raises:
      UserError: the method cannot stream.
    """
    if method.stream is None:
        able = ", ".join(name for name, m in METHODS.items() if m.stream is not None)
        raise UserError(f"{method.name} cannot stream; these can: {able}")
    return method.stream


def streaming_search(
    model: RecognitionModel, opts: SearchOptions, resources: Resources = Resources()
) -> StreamingSearch[Any]:
    """Build the streaming search of the method that ``opts`` name.

    Raises:
      UserError: there is no such method, or it cannot stream.
    """
    return check_streaming(get_method(opts.decoding_method))(model, opts, resources)


def check_head(model: ModelWithHeads, method: Method) -> None:
    """Refuse a method that searches a head which the model lacks.

    Raises:
      UserError: naming a method that could be used instead.
    """
    if method.head is Head.CTC and not model.use_ctc:
        raise UserError(
            f"the model has no CTC head, which --decoding-method {method.name} searches; try greedy_search"
        )
    if method.head is Head.TRANSDUCER and not model.use_transducer:
        raise UserError(
            f"the model has no transducer, which --decoding-method {method.name} searches; "
            "try ctc-greedy-search"
        )
    if method.attention_decoder and not model.use_attention_decoder:
        raise UserError(
            f"the model has no attention decoder, which --decoding-method {method.name} rescores with"
        )


def check_nbest(method: Method) -> None:
    """Refuse a method that finds one hypothesis only.

    Raises:
      UserError: naming the methods that find more.
    """
    if not method.nbest:
        able = ", ".join(name for name, m in METHODS.items() if m.nbest)
        raise UserError(f"--write-nbest: {method.name} has no n-best list; these have: {able}")
