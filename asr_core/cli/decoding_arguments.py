"""What decode, streaming_decode, export and their kin share. Not a program of its own."""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Type

from asr_core.encoders.chunk_options import CHUNK_OPTIONS
from asr_core.utils.errors import UserError
from asr_core.utils.options import AttributeDict, add_options, from_params, option, peek


@dataclasses.dataclass
class TestOptions:
    """Test sets: what is decoded, where, and how it is scored."""

    __test__ = False  # pytest: not a test

    bpe_model: str = option(
        "",
        "tokenizer: bpe.model, tokens.txt or a folder with one; left out: what training put into --exp-dir",
        aliases=("--tokens",),
    )
    test_sets: str = option(
        "", "names of test sets, separated by commas; left out: all of the corpus, or those of --test-cuts"
    )
    test_cuts: str = option(
        "", "other test sets: NAME=MANIFEST, separated by commas; files in --manifest-dir or elsewhere"
    )
    skip_scoring: bool = option(False, "write transcripts alone")
    score_characters: bool = option(False, "count characters in place of words")
    device: str = option(
        "auto", "where to compute; auto takes CUDA if there is any", choices=("auto", "cpu", "cuda")
    )
    num_threads: int = option(
        0, "CPU threads of tensor operations; 0 takes all cores that this process may use"
    )


def add_model_options(
    parser: argparse.ArgumentParser,
    defaults: Optional[Mapping[str, Any]] = None,
    argv: Optional[Sequence[str]] = None,
) -> None:
    """Add the model's options without defaults: what is left out comes from the checkpoint.

    They are those of a Zipformer unless ``--encoder`` is on the command line or among the defaults, as it is in a recipe of one encoder.
    """
    from asr_core.models.options import options_class

    defaults = defaults or {}
    cls = options_class(peek(argv, "encoder", defaults.get("encoder", "zipformer")))
    of_recipe = {n: value for n, value in defaults.items() if n in ("encoder", *CHUNK_OPTIONS)}
    if peek(
        argv, "decode-chunk-len", ""
    ):  # what is said on the command line holds, not what the recipe says in other words
        of_recipe = {
            n: value for n, value in of_recipe.items() if n not in ("chunk_size", "left_context_frames")
        }
    add_options(
        parser,
        cls,
        {**dict.fromkeys((f.name for f in dataclasses.fields(cls)), argparse.SUPPRESS), **of_recipe},
    )


def add_data_options(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    """Add the data options; the form of the features is the checkpoint's unless given."""
    from asr_core.data.options import DataOptions

    add_options(
        parser,
        DataOptions,
        {**defaults, **dict.fromkeys(("sample_rate", "num_mel_bins", "feature_type"), argparse.SUPPRESS)},
    )


def model_overrides(params: Mapping[str, Any]) -> Dict[str, Any]:
    """The model options that the user gave, without those of chunks, which can be chosen freely."""
    from asr_core.models.options import options_class

    fields = dataclasses.fields(options_class(params.get("encoder", "zipformer")))
    return {f.name: params[f.name] for f in fields if f.name in params and f.name not in CHUNK_OPTIONS}


def load_checkpoint_model(params: Mapping[str, Any]) -> Tuple[Any, AttributeDict]:
    """The (averaged) model that ``params`` select, in evaluation mode, and the parameters it was trained with."""
    from asr_core.models.checkpoint import load_averaged_model

    model, trained = load_averaged_model(
        *(params[name] for name in ("exp_dir", "epoch", "iter", "avg", "use_averaged_model")),
        model_overrides(params),
        params["use_ema"],
    )
    model.eval()
    logging.info("%d parameters", sum(p.numel() for p in model.parameters()))
    return model, AttributeDict({**model_overrides(params), **trained, "causal": model.encoder.causal})


def check_head(model: Any, decoding_method: str) -> None:
    """Refuse a search for a head that the model lacks."""
    from asr_core.decoding.registry import ALIASES, METHODS

    method = METHODS[ALIASES.get(decoding_method, decoding_method)]
    if method.head == "ctc":
        if not model.use_ctc:
            raise UserError(
                f"the model has no CTC head, which --decoding-method {decoding_method} searches; try greedy_search"
            )
    elif not model.use_transducer:
        raise UserError(
            f"the model has no transducer, which --decoding-method {decoding_method} searches; try ctc-greedy-search"
        )
    if "attention_decoder" in method.needs and not model.use_attention_decoder:
        raise UserError(
            f"the model has no attention decoder, which --decoding-method {decoding_method} rescores with"
        )


def fix_chunk(model: Any, chunk_size: int, left_context_frames: int, feature_dim: int) -> None:
    """Set the chunk size and left context of a causal model.

    Raises:
      UserError: its stacks cannot work with them.
    """
    import torch

    model.set_chunk(chunk_size, left_context_frames)
    num_frames = 2 * (chunk_size if chunk_size > 0 else 64) + model.geometry.look_ahead
    try:
        with torch.inference_mode():
            model.forward_encoder(torch.zeros(1, num_frames, feature_dim), torch.tensor([num_frames]))
    except ValueError as e:
        raise UserError(f"--chunk-size {chunk_size} --left-context-frames {left_context_frames}: {e}") from e


def find_tokenizer(given: str, *folders: Path, fallback: str = "") -> Any:
    """The tokenizer at ``given``, or else the first of bpe.model and tokens.txt in ``folders``, or else at ``fallback``.

    Raises:
      UserError: there is none.
    """
    from asr_core.text.tokenizer import Tokenizer

    if given:
        return Tokenizer.load(given)
    for folder in folders:
        for name in ("bpe.model", "tokens.txt"):
            if (folder / name).is_file():
                return Tokenizer.load(folder / name)
    if fallback:
        return Tokenizer.load(fallback)
    raise UserError(
        f"no bpe.model or tokens.txt in {' or '.join(map(str, folders))}: give one with --bpe-model or --tokens"
    )


def check_vocabulary(tokenizer: Any, vocab_size: int) -> None:
    """Refuse a tokenizer that is not the model's."""
    if tokenizer.vocab_size != vocab_size:
        raise UserError(
            f"{tokenizer.path} has {tokenizer.vocab_size} tokens, but the model {vocab_size}: it is another model's tokenizer"
        )


def pick_device(name: str) -> str:
    """``auto`` as what it stands for.

    Raises:
      UserError: CUDA was asked for and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("--device cuda: torch finds no CUDA device here")
    return ("cuda" if available else "cpu") if name == "auto" else name


def data_options(params: Mapping[str, Any], trained: Mapping[str, Any]) -> Any:
    """Data options of a test: features as in training, computed here where batches would hold audio.

    Raises:
      UserError: a given sampling rate, number of filters or kind of features is not the model's.
    """
    from asr_core.data.options import DataOptions

    form = {name: trained.get(name) for name in ("sample_rate", "feature_type")}
    form["num_mel_bins"] = trained.get("feature_dim", trained.get("num_mel_bins"))
    known = {name: value for name, value in form.items() if value is not None}
    for name, value in known.items():
        if name in params and params[name] != value:
            raise UserError(f"--{name.replace('_', '-')} {params[name]}: the model was trained with {value}")
    opts = from_params(DataOptions, {**params, **known})
    return (
        dataclasses.replace(opts, on_the_fly_feats=True, input_strategy="OnTheFlyFeatures")
        if opts.strategy == "AudioSamples"
        else opts
    )


def chosen_test_sets(corpus: Any, opts: TestOptions) -> Dict[str, Any]:
    """The test sets that ``opts`` name, or else its manifests', or else all of the corpus.

    Raises:
      UserError: there is none of that name.
    """
    wanted = [n.strip() for n in opts.test_sets.split(",") if n.strip()]
    sets = corpus.named_manifests(opts.test_cuts, "--test-cuts")
    if wanted or not sets:
        sets = {**corpus.test_sets(), **sets}
    wanted = wanted or list(sets)
    for name in wanted:
        if name not in sets:
            raise UserError(f"no test set {name!r}; there are: {', '.join(sets)}")
    return {name: sets[name] for name in wanted}


def progress(items: Iterator[Any], total_seconds: float, what: str) -> Iterator[Any]:
    """Pass ``items`` (with ``audio_seconds``) on and show how much of the audio is done; a bar on a terminal, else nothing."""
    from tqdm import tqdm

    form = (
        "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}, {rate_fmt}]"
    )
    with tqdm(
        total=total_seconds,
        desc=what,
        unit="s",
        bar_format=form,
        disable=not sys.stderr.isatty(),
        leave=False,
    ) as bar:
        for item in items:
            yield item
            bar.update(item.audio_seconds)


def parse(parser: Any, corpus: Type[Any], argv: Any) -> AttributeDict:
    """Parse the command line; the corpus adds its own options first."""
    from asr_core.utils.options import params_of

    corpus.add_arguments(parser)
    return params_of(parser.parse_args(argv))
