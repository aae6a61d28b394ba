"""Feature frames appended to utterances before they are encoded.

Simulated and real streaming see exactly the same frames: an utterance in chunks of C frames (at 50
Hz) is padded, by itself and not as far as its batch, to as many whole chunks as it needs; then come
the frames that the front end looks ahead. The encoder sees all of the last chunk, the search only
the frames of the utterance and its tail: silence of any length invites insertions.
"""

from typing import Tuple

import torch
from torch import Tensor

from asr_core.data.features import LOG_EPS
from asr_core.encoders.protocol import FrameGeometry

TAIL_FRAMES = 30  # a causal model needs to hear some silence before it emits its last token
_MIN_FRAMES = 9  # with fewer a front end may have no output


def num_chunks(num_frames: Tensor, chunk_size: int, geometry: FrameGeometry = FrameGeometry()) -> Tensor:
    """Return the number of chunks (N,) that utterances and their tails need.

    Args:
      num_frames: (N,) feature frames of each utterance.
      chunk_size: in 50-Hz frames.
      geometry: the model's frame geometry.
    """
    return (num_frames + (TAIL_FRAMES - geometry.trimmed_frames) + 2 * chunk_size - 1) // (2 * chunk_size)


def searched_frames(num_frames: Tensor, geometry: FrameGeometry = FrameGeometry()) -> Tensor:
    """Return the number of encoder output frames (N,) that are searched: of utterances and their
    tails. In an utterance without frames nothing is searched.

    Args:
      num_frames: (N,) feature frames of each utterance.
      geometry: the model's frame geometry.
    """
    embedded = (num_frames + (TAIL_FRAMES - geometry.trimmed_frames)) // geometry.embed_factor
    frames = (embedded + geometry.encoder_factor - 1) // geometry.encoder_factor
    return frames * (num_frames > 0)


def pad_for_encoder(
    x: Tensor, x_lens: Tensor, causal: bool, chunk_size: int = -1, geometry: FrameGeometry = FrameGeometry()
) -> Tuple[Tensor, Tensor]:
    """Append the frames that a model needs after each utterance.

    A non-causal model gets nothing (unless the utterance is too short to encode at all), a
    causal one with unlimited chunks 30 frames, one with chunks whole chunks as described above.

    Args:
      x: (N, T, F) features; frames beyond an utterance's length are overwritten.
      x_lens: (N,) int64 lengths.
      causal: whether the model is causal.
      chunk_size: in 50-Hz frames, -1 for unlimited.
      geometry: the model's frame geometry.

    Returns:
      The longer features (N, T', F), padded with ``LOG_EPS``, and the lengths (N,) that count.
    """
    if causal and chunk_size > 0:
        # with the look-ahead of the last chunk, which real streaming sees as silence, too
        lens = 2 * chunk_size * num_chunks(x_lens, chunk_size, geometry) + geometry.look_ahead
    else:
        lens = (x_lens + TAIL_FRAMES if causal else x_lens).clamp(min=_MIN_FRAMES)
    longest = int(lens.max())
    out = x.new_full((x.size(0), longest, x.size(2)), LOG_EPS)
    keep = min(longest, x.size(1))
    out[:, :keep] = x[:, :keep]
    beyond = torch.arange(longest, device=x.device) >= x_lens.to(x.device).unsqueeze(1)
    return out.masked_fill_(beyond.unsqueeze(-1), LOG_EPS), lens


def streaming_windows(features: Tensor, chunk_size: int, geometry: FrameGeometry = FrameGeometry()) -> Tensor:
    """Return the windows that a streaming encoder is fed for one utterance.

    They hold the frames that :func:`pad_for_encoder` lets it see.

    Args:
      features: (T, F).
      chunk_size: in 50-Hz frames.
      geometry: the model's frame geometry.

    Returns:
      (K, W, F): K windows of one chunk and the look-ahead, W = 2 * chunk_size + look_ahead feature
      frames, one chunk apart.
    """
    lens = torch.tensor([len(features)])
    padded, _ = pad_for_encoder(features.unsqueeze(0), lens, True, chunk_size, geometry)
    return padded[0].unfold(0, 2 * chunk_size + geometry.look_ahead, 2 * chunk_size).transpose(1, 2)
