"""Models for inference, from any file that training or export writes."""

from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Union

from asr_core.encoders.chunk_options import WHOLE_UTTERANCE, chunk_and_left, from_decode_chunk_len
from asr_core.export.pretrained import model_info
from asr_core.export.torchscript import ScriptedModel, is_torchscript, load_torchscript
from asr_core.models.asr_model import AsrModel
from asr_core.models.checkpoint import (
    load_checkpoint_file,
    model_from_checkpoint,
    model_of,
    model_options,
)
from asr_core.text.pieces import check_tokenizer, recorded_pieces
from asr_core.text.tokenizer import Tokenizer
from asr_core.utils.errors import UserError
from asr_core.utils.options import flag
from asr_core.utils.paths import PathLike

_ADVICE = "leave out --tokens and --bpe-model, as the model's tokens are known"
_UNKNOWN_TOKENS = "give the model's own with --tokens"


class InferenceModel(NamedTuple):
    """A model with what recognition needs to know about it.

    Attributes:
      model: model in evaluation mode.
      tokenizer: tokenizer of the model.
      sample_rate: samples per second of its audio.
      feature_dim: features per frame.
      feature_type: kind of features, see :func:`asr_core.data.features.make_extractor`.
      causal: whether it is causal.
      chunk_size: in 50 Hz frames, -1 for whole utterances.
      streaming: whether it encodes only chunk by chunk.
      frame_seconds: duration of a frame of encoder output, in seconds.
    """

    model: Union[AsrModel, ScriptedModel]
    tokenizer: Tokenizer
    sample_rate: int
    feature_dim: int
    feature_type: str
    causal: bool
    chunk_size: int
    streaming: bool
    frame_seconds: float


def load_for_inference(
    path: str,
    tokens: str = "",
    given: Optional[Mapping[str, object]] = None,
    device: str = "cpu",
    trust: bool = False,
    use_ema: Optional[bool] = None,
) -> InferenceModel:
    """Load a training checkpoint, a ``pretrained.pt`` or a TorchScript file, recognised by content.

    Args:
      path: file.
      tokens: bpe.model, tokens.txt or a folder with one; by default the tokens in the file, else
        those beside it.
      given: model options, ``sample_rate`` and ``feature_type`` that the file does not record, and
        ``chunk_size``, ``left_context_frames`` to decode a causal model with, or what
        :func:`~asr_core.encoders.chunk_options.from_decode_chunk_len` takes for them.
      device: device to load the model onto.
      trust: load a TorchScript file whatever its code may do.
      use_ema: take the exponential average of a checkpoint instead of its weights; None: if
        training validated with it.

    Raises:
      UserError: the file is missing, damaged, or not a model, or could do more than compute; there
        are no tokens; options contradict it.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"no such model: {path}")
    if is_torchscript(file):
        if use_ema:
            raise UserError(
                f"--use-ema 1: {path} is TorchScript, which holds one set of weights: leave it out"
            )
        scripted = load_torchscript(file, device, trust)
        loaded = describe_scripted(scripted, file, tokens, dict(given or {}))
    else:
        loaded = _load_checkpoint(file, tokens, dict(given or {}), device, use_ema)
    rate = int(str((given or {}).get("sample_rate", loaded.sample_rate)))
    if rate != loaded.sample_rate:
        raise UserError(
            f"--sample-rate {rate}: {path} was trained with {loaded.sample_rate};"
            " leave it out, audio is resampled"
        )
    kind = (given or {}).get("feature_type", loaded.feature_type)
    if kind != loaded.feature_type:
        raise UserError(f"--feature-type {kind}: {path} was trained with {loaded.feature_type}")
    return loaded


def describe_scripted(
    model: ScriptedModel, path: PathLike, tokens: str, given: Mapping[str, object]
) -> InferenceModel:
    """Describe a scripted model from its file; arguments as of :func:`load_for_inference`.

    Raises:
      UserError: ``given`` contradicts the file, or there are no tokens.
    """
    says_left = "left_context_frames" in given or "num_left_chunks" in given
    user, given = given, from_decode_chunk_len(given, model.info)
    for name in ("chunk_size", "left_context_frames") if says_left else ("chunk_size",):
        if name in given and str(given[name]) != str(getattr(model, name)):
            chunks = f"chunks of {model.chunk_size} frames and a left context of {model.left_context_frames}"
            fixed = chunks if model.streaming else "whole utterances"
            raise UserError(f"{_as_given(name, user, given)}: {path} was exported for {fixed}")
    info = model.info
    try:
        model_options(info, given)  # refuses what contradicts the file
    except UserError as e:
        raise UserError(f"{path}: {e}") from e
    return InferenceModel(
        model=model,
        tokenizer=_tokenizer(tokens, model.pieces, Path(path), model.vocab_size),
        sample_rate=int(str(info.get("sample_rate", given.get("sample_rate", 16000)))),
        feature_dim=int(info.get("feature_dim", 80)),
        feature_type=str(info.get("feature_type", given.get("feature_type", "fbank"))),
        causal=model.streaming or bool(info.get("causal", False)),
        chunk_size=model.chunk_size,
        streaming=model.streaming,
        frame_seconds=int(info.get("subsampling_factor", 4)) / 100,
    )


def _as_given(name: str, user: Mapping[str, object], converted: Mapping[str, object]) -> str:
    """Return option and value as the user wrote them, with what they stand for in 50 Hz frames.

    Args:
      name: ``chunk_size`` or ``left_context_frames``.
      user: the user's options, perhaps those of the first Zipformer.
      converted: the same by the usual names.
    """
    if name in user:
        return f"{flag(name)} {user[name]}"
    old = ("decode_chunk_len",) if name == "chunk_size" else ("decode_chunk_len", "num_left_chunks")
    words = " ".join(f"{flag(option)} {user[option]}" for option in old if option in user)
    kind = "chunks" if name == "chunk_size" else "a left context"
    return f"{words} ({kind} of {converted[name]} frames)"


def _load_checkpoint(
    path: Path, tokens: str, given: Mapping[str, object], device: str, use_ema: Optional[bool]
) -> InferenceModel:
    checkpoint = load_checkpoint_file(path)
    checkpoint["model"] = model_of(checkpoint, path, use_ema)
    given = from_decode_chunk_len(given, checkpoint)
    overrides = {k: v for k, v in given.items() if k not in ("chunk_size", "left_context_frames")}
    model = model_from_checkpoint(checkpoint, overrides).eval().to(device)
    info = model_info(model, {**overrides, **checkpoint})
    causal, chunk = bool(info["causal"]), -1
    if causal:
        chunk, left = chunk_and_left(given, {}, default=WHOLE_UTTERANCE)
        model.set_chunk(chunk, left)
    return InferenceModel(
        model=model,
        tokenizer=_tokenizer(
            tokens, recorded_pieces(checkpoint, path.parent, model.vocab_size), path, model.vocab_size
        ),
        sample_rate=info["sample_rate"],
        feature_dim=info["feature_dim"],
        feature_type=info["feature_type"],
        causal=causal,
        chunk_size=chunk,
        streaming=False,
        frame_seconds=info["subsampling_factor"] / 100,
    )


def _tokenizer(given: str, pieces: Optional[List[str]], model_path: Path, vocab_size: int) -> Tokenizer:
    """Load the tokenizer at ``given``, or else of ``pieces``, or else the one next to the model.

    Raises:
      UserError: there is none, or its tokens are not the model's.
    """
    beside = [path for name in ("tokens.txt", "bpe.model") if (path := model_path.parent / name).is_file()]
    if given:
        tokenizer = Tokenizer.load(given, vocab_size)
    elif pieces:
        tokenizer = Tokenizer(pieces, path=str(model_path))
    elif beside:
        tokenizer = Tokenizer.load(beside[0], vocab_size)
    else:
        raise UserError(f"no tokens.txt or bpe.model next to {model_path}: give one with --tokens")
    check_tokenizer(tokenizer, vocab_size, pieces, str(model_path), _ADVICE if pieces else _UNKNOWN_TOKENS)
    return tokenizer
