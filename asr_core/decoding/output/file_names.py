"""Names of results and of their files, as the field's tools and habits expect them."""

from pathlib import Path
from typing import Any, NamedTuple

from asr_core.decoding.options import SearchOptions
from asr_core.decoding.registry import get_method
from asr_core.decoding.resources import wants_neural_lm


class ResultFiles(NamedTuple):
    """Where the results of a test set go; each name has the places ``{set}`` and ``{key}``.

    Attributes:
      folder: the files' folder.
      recogs, errs, summary: names.
      key: the name of the result, where a method yields one.
    """

    folder: Path
    recogs: str
    errs: str
    summary: str
    key: str

    def full_key(self, key: str) -> str:
        """The name of the result that a search called ``key``."""
        return f"{self.key}_{key}" if key else self.key

    def path(self, name: str, set_name: str, key: str) -> Path:
        """The file called ``name`` for the result ``key`` of a test set; the name carries the key where there are several."""
        return self.folder / name.format(set=set_name, key=f"-{self.full_key(key)}" if key else "")

    def beside(self, kind: str, ending: str) -> str:
        """The name of a further file ``<kind>-...<ending>`` that goes with ``recogs-....txt``."""
        return kind + self.recogs[len("recogs") : -len(".txt")] + ending

    def log_name(self, name: str) -> str:
        """The name of the log that goes with files called ``name``."""
        return "log-decode-" + name[name.index("{set}") + len("{set}") : -len(".txt")].replace(
            "{key}", ""
        ).lstrip("-_")


def checkpoint_part(params: Any) -> str:
    """``epoch-E`` or ``iter-I``, with which result files begin."""
    return f"iter-{params['iter']}" if params["iter"] > 0 else f"epoch-{params['epoch']}"


def _fast_part(opts: SearchOptions) -> str:
    part = f"_beam-{opts.beam}_max-contexts-{opts.max_contexts}_max-states-{opts.max_states}"
    if "nbest" in opts.decoding_method:
        part += f"_nbest-scale-{opts.nbest_scale}_num-paths-{opts.num_paths}"
    if opts.decoding_method.endswith("LG") and (
        "nbest" in opts.decoding_method or opts.ngram_lm_scale != SearchOptions.ngram_lm_scale
    ):
        part += f"_ngram-lm-scale-{opts.ngram_lm_scale}"  # icefall names it for nbest alone
    return part + (f"_ilme-scale-{opts.ilme_scale}" if opts.ilme_scale is not None else "")


def _optional_fusion_part(opts: SearchOptions, neural: bool) -> str:
    """Of the methods that work with or without language models."""
    if "fusion" not in get_method(opts).needs:
        return ""
    part = f"_{opts.lm_type}-lm-scale-{opts.lm_scale}" if neural else ""
    if opts.lodr_ngram:
        part += f"_LODR-{Path(opts.lodr_ngram).name.split('.')[0]}-scale-{opts.lodr_lm_scale}"
    if opts.word_ngram:
        part += f"_word-ngram-scale-{opts.word_ngram_scale}_word-score-{opts.word_score}"
    return part


def _phrases_part(opts: SearchOptions) -> str:
    given = opts.context_file and "context_file" in get_method(opts).uses
    return f"context-score-{opts.context_score}" if given else ""


def _method_part(opts: SearchOptions, context_size: int) -> str:
    name = opts.decoding_method
    if name.startswith("fast_beam_search"):
        return _fast_part(opts)
    phrases = _phrases_part(opts)
    if "beam_size" in get_method(opts).uses:
        return (
            f"__{name}__beam-size-{opts.beam_size}" + (f"-{phrases}" if phrases else "") + _search_part(opts)
        )
    if name == "greedy_search":
        context = f"_context-{context_size}" if context_size else ""
        return f"{context}_max-sym-per-frame-{opts.max_sym_per_frame}" + (f"_{phrases}" if phrases else "")
    return _graph_part(opts)


def _search_part(opts: SearchOptions) -> str:
    """What else a beam search with a transducer may be told."""
    uses = get_method(opts).uses
    part = "_no-merging" if "alsd_merge" in uses and not opts.alsd_merge else ""
    return part + (f"_ilme-scale-{opts.ilme_scale}" if "ilme_scale" in uses and opts.ilme_scale else "")


def _graph_part(opts: SearchOptions) -> str:
    given = "hlg" in get_method(opts).needs and opts.hlg_scale != SearchOptions.hlg_scale
    part = f"_hlg-scale-{opts.hlg_scale}" if given else ""
    draws = opts.decoding_method.startswith(("nbest", "attention-decoder-rescoring"))
    return part + (f"_nbest-scale-{opts.nbest_scale}_num-paths-{opts.num_paths}" if draws else "")


def _fusion_part(opts: SearchOptions) -> str:
    needs, uses = get_method(opts).needs, get_method(opts).uses
    if "lm" not in needs:
        return ""
    part = f"_{opts.lm_type}-lm" + (f"-scale-{opts.lm_scale}" if "lm_scale" in uses else "")
    if "ngram" in needs:
        part += f"_LODR-{opts.tokens_ngram}gram" + (
            f"-scale-{opts.ngram_lm_scale}" if "ngram_lm_scale" in uses else ""
        )
    return part


def _adjustments(opts: SearchOptions) -> str:
    penalty = f"_blank-penalty-{opts.blank_penalty}" if opts.blank_penalty else ""
    return penalty + (f"_temperature-{opts.temperature}" if opts.temperature != 1 else "")


def result_key(opts: SearchOptions) -> str:
    """The name of the results of decoding whole utterances."""
    name = opts.decoding_method
    if name.startswith("fast_beam_search"):
        return name + _fast_part(opts)
    phrases = _phrases_part(opts)
    if "beam_size" in get_method(opts).uses:
        return f"{name}_beam-size-{opts.beam_size}" + (f"_{phrases}" if phrases else "") + _search_part(opts)
    return name + (f"_{phrases}" if phrases else "")


def streaming_key(opts: SearchOptions) -> str:
    """The name of the results of decoding streams."""
    if opts.decoding_method == "fast_beam_search":
        return _fast_part(opts).lstrip("_")
    phrases = _phrases_part(opts)
    many = "beam_size" in get_method(opts).uses
    return (f"num-active-paths-{opts.beam_size}" if many else opts.decoding_method.replace("_", "-")) + (
        f"_{phrases}" if phrases else ""
    )


def _chunk_part(causal: bool, chunk_size: int, left_context_frames: int) -> str:
    return f"_chunk-{chunk_size}_left-context-{left_context_frames}" if causal else ""


def offline_files(
    params: Any, opts: SearchOptions, context_size: int, causal: bool, chunk_size: int, left: int
) -> ResultFiles:
    """Names of what decode.py writes, below ``<exp_dir>/<decoding method>``; a ``context_size`` of 0 is left out."""
    suffix = f"{checkpoint_part(params)}_avg-{params['avg']}" + _chunk_part(causal, chunk_size, left)
    neural = wants_neural_lm(opts, params.get("lm_exp_dir"), params.get("transformer_lm_exp_dir"))
    suffix += (
        _method_part(opts, context_size)
        + _fusion_part(opts)
        + _optional_fusion_part(opts, neural)
        + _adjustments(opts)
    )
    suffix += ("_use-averaged-model" if params["use_averaged_model"] else "") + (
        "_use-ema" if params["use_ema"] else ""
    )
    return ResultFiles(
        folder=Path(params["exp_dir"]) / opts.decoding_method,
        recogs=f"recogs-{{set}}{{key}}-{suffix}.txt",
        errs=f"errs-{{set}}{{key}}-{suffix}.txt",
        summary=f"wer-summary-{{set}}-{suffix}.txt",
        key=result_key(opts),
    )


def streaming_files(params: Any, opts: SearchOptions, chunk_size: int, left: int) -> ResultFiles:
    """Names of what streaming_decode.py writes, below ``<exp_dir>/streaming/<decoding method>``."""
    key = streaming_key(opts)
    suffix = (
        f"{checkpoint_part(params)}_avg-{params['avg']}"
        + _chunk_part(True, chunk_size, left)
        + _adjustments(opts)
    )
    suffix += ("-use-averaged-model" if params["use_averaged_model"] else "") + (
        "-use-ema" if params["use_ema"] else ""
    )
    suffix += f"-{params['label']}" if params["label"] else ""
    return ResultFiles(
        folder=Path(params["exp_dir"]) / "streaming" / opts.decoding_method,
        recogs=f"recogs-{{set}}_{key}_{suffix}.txt",
        errs=f"errs-{{set}}_{key}_{suffix}.txt",
        summary=f"wer-summary_{{set}}_{key}_{suffix}.txt",
        key=key,
    )
