"""Batches that reach a GPU while it still works on the one before."""

from typing import Any, Iterable, Iterator, Mapping, Optional, Tuple

import torch

from asr_core.data.device_features import shape_of_features, with_inputs_on
from asr_core.utils.errors import UserError

Batch = Mapping[str, Any]


def ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches whose inputs are on a device already.

    On a GPU the next batch is fetched, copied and, where a batch has audio, made into features
    when one is handed over, on a stream of its own: the work on that one goes on meanwhile. On a
    CPU features are computed when a batch is wanted, and all else stays as it is.

    Args:
      batches: batches with ``inputs``; copies from pinned memory wait for nothing.
      device: device of the model.
    """
    if device.type != "cuda":
        for batch in batches:
            yield with_inputs_on(batch, device) if "plan" in batch else batch
        return
    stream = torch.cuda.Stream(device)
    upcoming: Optional[Tuple[Batch, torch.cuda.Event]] = None
    for batch in batches:
        with torch.cuda.stream(stream):
            try:
                moved = with_inputs_on(batch, device)
            except torch.cuda.OutOfMemoryError as e:
                raise UserError(
                    f"out of memory for the next batch, of shape {shape_of_features(batch)}, while "
                    "the GPU works on one: lower --max-duration"
                ) from e
            done = stream.record_event()
        if upcoming is not None:
            yield _handed_over(*upcoming)
        upcoming = (moved, done)
    if upcoming is not None:
        yield _handed_over(*upcoming)


def _handed_over(batch: Batch, done: torch.cuda.Event) -> Batch:
    """Return a batch for use on the present stream, which waits until it is there."""
    present = torch.cuda.current_stream(batch["inputs"].device)
    present.wait_event(done)
    batch["inputs"].record_stream(present)  # its memory is not used again before
    return batch
