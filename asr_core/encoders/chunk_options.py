"""Chunk options of causal encoders, and the single chunk to decode with.

Chunk sizes and left contexts count frames of 50 Hz, whatever the frame rate of an encoder.
"""

from dataclasses import dataclass
from typing import Dict, Mapping, NamedTuple, Optional, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import as_recorded, flag, option

CHUNK_OPTIONS = ("chunk_size", "left_context_frames", "decode_chunk_len", "num_left_chunks")
_FIRST_ZIPFORMER = {"decode_chunk_len": 32, "num_left_chunks": 4}  # its options, and their defaults


@dataclass(frozen=True)
class ChunkOptions:
    """Chunks of a causal encoder."""

    causal: bool = option(False, "Chunk-causal convolutions, for streaming; changes the parameters.")
    # training on all of these gives one model for any latency
    chunk_size: Tuple[int, ...] = option(
        (16, 32, 64, -1),
        "Chunk sizes in 50 Hz frames; training draws one per batch, -1 is the whole utterance. One "
        "value in decoding.",
        at_least=1,
        at_most=100_000,
        unless=-1,
    )
    left_context_frames: Tuple[int, ...] = option(
        (64, 128, 256, -1),
        "Left contexts in 50 Hz frames, as --chunk-size; -1 is unlimited.",
        at_least=0,
        at_most=100_000,
        unless=-1,
    )


class Chunk(NamedTuple):
    """A chunk of a causal encoder.

    Attributes:
      size: 50-Hz frames, -1 for the whole utterance.
      left_context: 50-Hz frames before the chunk that attention sees, -1 for all.
    """

    size: int
    left_context: int


WHOLE_UTTERANCE = Chunk(-1, -1)


def decoding_chunk(decode_chunk_len: int, num_left_chunks: int) -> Chunk:
    """Convert the chunk options of the first Zipformer, which count feature frames and chunks.

    Raises:
      UserError: a value is out of range.
    """
    if decode_chunk_len < 2 or decode_chunk_len % 2 != 0:
        raise UserError(
            f"--decode-chunk-len must be an even number of feature frames above 0, got {decode_chunk_len}"
        )
    if num_left_chunks < 1 and num_left_chunks != -1:
        raise UserError(f"--num-left-chunks must be positive, or -1 for all there is, got {num_left_chunks}")
    size = decode_chunk_len // 2
    return Chunk(size, size * num_left_chunks if num_left_chunks > 0 else -1)


def from_decode_chunk_len(given: Mapping[str, object], trained: Mapping[str, object]) -> Dict[str, object]:
    """Replace the first Zipformer's chunk options by ``chunk_size`` and ``left_context_frames``.

    Args:
      given: options by name. Of both kinds, ``chunk_size`` and ``left_context_frames`` win.
      trained: the model's own options, which complete a kind that is given in part.

    Raises:
      UserError: a value is out of range.
    """
    out = {name: value for name, value in given.items() if name not in _FIRST_ZIPFORMER}
    if all(name not in given for name in _FIRST_ZIPFORMER):
        return out
    length, left = (
        int(str(given.get(name, trained.get(name, default)))) for name, default in _FIRST_ZIPFORMER.items()
    )
    chunk = decoding_chunk(length, left)
    return {"chunk_size": str(chunk.size), "left_context_frames": str(chunk.left_context), **out}


def chunk_and_left(
    given: Mapping[str, object], trained: Mapping[str, object], default: Optional[Chunk]
) -> Chunk:
    """Determine the single chunk size and left context to decode a causal model with.

    Args:
      given: the user's options; may hold ``chunk_size`` and ``left_context_frames``, or the options
        that :func:`from_decode_chunk_len` takes for them.
      trained: the model's own values, e.g. ``"16,32,64,-1"``; used if they are single.
      default: used where neither has a single value; None to refuse.

    Raises:
      UserError: there is no single value, or it is out of range.
    """
    given = from_decode_chunk_len(given, trained)
    trained = from_decode_chunk_len({name: value for name, value in trained.items() if value != ""}, {})
    size = _single("chunk_size", given, trained, None if default is None else default.size)
    left = _single("left_context_frames", given, trained, None if default is None else default.left_context)
    return Chunk(size, left)


def _single(
    name: str, given: Mapping[str, object], trained: Mapping[str, object], default: Optional[int]
) -> int:
    """Return the given value of option ``name``, or the single trained one, or the default."""
    recorded = str(as_recorded(trained.get(name, "")))
    candidates = [part.strip() for part in recorded.split(",") if part.strip()]
    if name in given:
        text = str(as_recorded(given[name]))
    elif len(candidates) == 1:
        text = candidates[0]
    elif default is not None:
        text = str(default)
    else:
        raise UserError(f"the model was trained with {flag(name)} {','.join(candidates)}: give one of them")
    try:
        value = int(text)
    except ValueError:
        raise UserError(f"{flag(name)} must be a single integer here, got {text!r}") from None
    if value != -1 and value < 1:
        raise UserError(f"{flag(name)} must be positive, or -1 for all there is, got {text}")
    return value
