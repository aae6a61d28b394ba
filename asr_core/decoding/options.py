"""Options of decoding, exporting and transcribing."""

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

from asr_core.utils.errors import UserError
from asr_core.utils.options import option

DEFAULT_EPOCH, DEFAULT_AVG = 30, 15


@dataclass
class CheckpointOptions:
    """Checkpoint: whose weights."""

    epoch: int = option(DEFAULT_EPOCH, "use epoch-<epoch>.pt; counts from 1")
    iter: int = option(0, "if positive, use checkpoint-<iter>.pt in place of an epoch's")
    avg: int = option(DEFAULT_AVG, "number of checkpoints to average; with --use-averaged-model the span of epochs averaged over")
    use_averaged_model: bool = option(
        True, "average over all steps between the first and the last checkpoint, from the running averages they hold"
    )
    exp_dir: str = option("zipformer/exp", "folder of the checkpoints; results go there too")


@dataclass
class SearchOptions:
    """Search: from encoder output to tokens."""

    decoding_method: str = option("greedy_search", "greedy_search or modified_beam_search")
    beam_size: int = option(4, "hypotheses kept by beam searches")
    max_sym_per_frame: int = option(1, "tokens that greedy search may emit at one frame")
    blank_penalty: float = option(0.0, "subtracted from the score of blank: above 0 fewer deletions, more insertions")
    temperature: float = option(1.0, "logits are divided by it before the softmax")


@dataclass
class StreamingSearchOptions:
    """Search: from encoder output to tokens, chunk by chunk."""

    decoding_method: str = option("greedy_search", "greedy_search or modified_beam_search")
    num_active_paths: int = option(4, "hypotheses kept by modified_beam_search", aliases=("--num_active_paths",))
    blank_penalty: float = option(0.0, "subtracted from the score of blank: above 0 fewer deletions, more insertions")
    temperature: float = option(1.0, "logits are divided by it before the softmax")
    num_decode_streams: int = option(2000, "streams decoded in parallel")
    label: str = option("", "appended to the names of the result files")

    def search_options(self) -> SearchOptions:
        """The same in the terms of :class:`SearchOptions`."""
        return SearchOptions(
            decoding_method=self.decoding_method,
            beam_size=self.num_active_paths,
            blank_penalty=self.blank_penalty,
            temperature=self.temperature,
        )


def check_search(opts: SearchOptions) -> None:
    """Refuse values that no search can work with.

    Raises:
      UserError: naming the option.
    """
    if opts.beam_size < 1:
        raise UserError(f"--beam-size (or --num-active-paths) must be at least 1, got {opts.beam_size}")
    if opts.max_sym_per_frame < 1:
        raise UserError(f"--max-sym-per-frame must be at least 1, got {opts.max_sym_per_frame}")
    if not opts.temperature > 0:
        raise UserError(f"--temperature must be above 0, got {opts.temperature}")


def chunk_and_left(given: Mapping[str, Any], trained: Mapping[str, Any], default: Optional[Tuple[int, int]]) -> Tuple[int, int]:
    """The one chunk size and left context, in 50-Hz frames, to decode a causal model with.

    Args:
      given: what the user gave, may hold ``chunk_size`` and ``left_context_frames``.
      trained: the model's own values, e.g. ``"16,32,64,-1"``; used where they are single.
      default: (chunk size, left context) where neither says anything; None to refuse.

    Raises:
      UserError: no single value is given, or it makes no sense.
    """
    out: Dict[str, int] = {}
    for i, name in enumerate(("chunk_size", "left_context_frames")):
        flag = "--" + name.replace("_", "-")
        text = str(given[name]) if name in given else None
        candidates = [part.strip() for part in str(trained.get(name, "")).split(",") if part.strip()]
        if text is None and len(candidates) == 1:
            text = candidates[0]
        if text is None and default is not None:
            text = str(default[i])
        if text is None:
            raise UserError(f"the model was trained with {flag} {','.join(candidates)}: give one of them")
        try:
            out[name] = int(text)
        except ValueError:
            raise UserError(f"{flag} must be a single integer here, got {text!r}") from None
        if out[name] != -1 and out[name] < 1:
            raise UserError(f"{flag} must be positive, or -1 for all there is, got {text}")
    return out["chunk_size"], out["left_context_frames"]
