"""Mixtures of several corpora, by the weights that the user gives."""

from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

from asr_core.data.filter import CutFilter
from asr_core.data.open_cuts import open_cuts
from asr_core.data.options import DataOptions
from asr_core.data.stream import CutStream, MuxStream, open_stream
from asr_core.utils.errors import UserError

if TYPE_CHECKING:
    from lhotse import CutSet

_TRAIN = "train"


def parse_mux(text: str) -> List[Tuple[str, Optional[float]]]:
    """Read ``a.jsonl.gz:2.0,b.jsonl.gz``: names and weights, None where no weight is given.

    Raises:
      UserError: there are fewer than two entries, or a weight is not a positive number.
    """
    parts: List[Tuple[str, Optional[float]]] = []
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        name, found, number = entry.rpartition(":")
        try:
            weight = float(number) if found else None
        except ValueError:
            raise UserError(f"--mux-cuts {entry!r}: expected MANIFEST:WEIGHT, the weight a number") from None
        if not (weight is None or weight > 0):
            raise UserError(f"--mux-cuts {entry!r}: the weight must be above 0")
        parts.append((name if found else entry, weight))
    if len(parts) < 2:
        raise UserError(
            f"--use-mux 1 needs at least two corpora in --mux-cuts, not {text!r}; "
            "for example train:1.0,other.jsonl.gz:2.0"
        )
    return parts


def other_corpora(opts: DataOptions) -> Dict[str, "CutSet"]:
    """Open the corpora of ``opts.mux_cuts`` besides the training cuts, by the names there.

    Raises:
      UserError: one does not exist.
    """
    names = [name for name, _ in parse_mux(opts.mux_cuts) if name != _TRAIN]
    return {name: open_cuts(name, opts.manifest_dir, opts.strategy) for name in names}


def open_mux(opts: DataOptions, train: CutStream, keep: Optional[CutFilter], seed: int) -> MuxStream:
    """Return the stream that ``opts.mux_cuts`` describes.

    Args:
      opts: data options.
      train: the stream named ``train`` there.
      keep: which cuts of the others to use.
      seed: seed of the draws.

    Raises:
      UserError: a manifest is missing, or holds nothing usable.
    """
    streams, weights, others = [], [], other_corpora(opts)
    for name, weight in parse_mux(opts.mux_cuts):
        stream = train
        if name != _TRAIN:
            stream = open_stream(others[name], keep, seed)
        weight = weight or stream.survey()[0]
        if not weight:
            raise UserError(f"--mux-cuts {name}: no usable cuts")
        streams.append(stream)
        weights.append(weight)
    return MuxStream(streams, weights, seed, opts.mux_stop_early)
