"""Trying the largest batches before training, so that memory runs out in the first minute and not in the tenth hour."""

import logging
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import torch
from torch import nn

from asr_core.data.stream import view_of_line
from asr_core.nn.scaling import load_training_state, training_state
from asr_core.training.distributed.world import SingleProcess
from asr_core.training.health.bad_batches import is_out_of_memory
from asr_core.training.state import random_states, set_random_states
from asr_core.utils.errors import UserError

Refs = List[Any]


def sizes_of(refs: Sequence[Any]) -> Dict[str, float]:
    """What makes a batch large, by name, from its cuts or lines of a manifest; nothing is loaded."""
    views = [view_of_line(ref.line, ref.speed) if hasattr(ref, "line") else ref for ref in refs]
    durations = [view.duration for view in views]
    return {
        "the longest utterance": max(durations),
        "the most audio, padding counted": max(durations) * len(durations),
        "the most audio": sum(durations),
        "the most cuts": len(durations),
        "the most text": sum(len(s.text or "") for view in views for s in view.supervisions),
    }


def find_extremes(batches: Iterable[Tuple[int, Refs]]) -> List[Tuple[str, int, Refs]]:
    """The batches that are the largest in one way or another: (in which ways, position in the epoch, cuts)."""
    best: Dict[str, Tuple[float, int, Refs]] = {}
    for position, refs in batches:
        for name, size in sizes_of(refs).items():
            if name not in best or size > best[name][0]:
                best[name] = (size, position, refs)
    by_position: Dict[int, Tuple[str, int, Refs]] = {}
    for name, (_, position, refs) in best.items():
        names = f"{by_position[position][0]}, {name}" if position in by_position else name
        by_position[position] = (names, position, refs)
    return list(by_position.values())


class OomScan:
    """Runs forward and backward on some batches and leaves everything as it was.

    Args:
      model: what trains.
      loss_of: batch -> the loss to be minimised.
      load: (position in the epoch, cuts) -> batch.
      device: where the model is.
      max_duration: the option's value, for messages.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[Dict[str, Any]], torch.Tensor],
        load: Callable[[Tuple[int, Refs]], Dict[str, Any]],
        device: torch.device,
        max_duration: float,
    ) -> None:
        self.model = model
        self.loss_of = loss_of
        self.load = load
        self.device = device
        self.max_duration = max_duration

    def run(self, extremes: Sequence[Tuple[str, int, Refs]]) -> None:
        """Try batches that :func:`find_extremes` gave.

        Raises:
          UserError: one of them does not fit into memory; says which, and what would fit.
        """
        began = time.monotonic()
        self.model.train()
        states = random_states(), training_state(self.model)
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        # the optimizer's two moments, which are not there yet in the first step
        reserve = [torch.empty_like(p) for p in self.model.parameters() if p.requires_grad for _ in range(2)]
        try:
            for what, position, refs in extremes:
                if not self._fits(position, refs):
                    raise UserError(self._advice(what, position, refs))
        finally:
            del reserve
            set_random_states(states[0])
            load_training_state(self.model, states[1])
            with torch.no_grad():
                for name, b in self.model.named_buffers():
                    b.copy_(buffers[name])
        logging.info(
            "The %d largest kinds of batches fit into memory (%.1f s)",
            len(extremes),
            time.monotonic() - began,
        )

    def _fits(self, position: int, refs: Refs) -> bool:
        try:
            batch = self.load((position, refs))
            if len(batch["supervisions"]["text"]):
                self.loss_of(batch).backward()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            return True
        except Exception as e:
            if not is_out_of_memory(e):
                raise
            return False
        finally:
            self.model.zero_grad(set_to_none=True)

    def _advice(self, what: str, position: int, refs: Refs) -> str:
        ordered = sorted(refs, key=lambda ref: -sizes_of([ref])["the longest utterance"])
        fits, fails = 0, len(ordered)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if self._fits(position, ordered[:middle]):
                fits = middle
            else:
                fails = middle
        sizes = sizes_of(refs)
        line = (
            f"out of memory on the batch with {what}: {len(refs)} cuts, {sizes['the most audio']:.0f} s, the longest of "
            f"{sizes['the longest utterance']:.1f} s, at --max-duration {self.max_duration:g}"
        )
        room = self._room(ordered[:fits])
        if room is None:
            return f"{line}; not even one of its cuts fits alone: lower --max-utt-duration or take a smaller model"
        return f"{line}; {fits} of its cuts fit, so --max-duration {room} will do"

    def _room(self, refs: Refs) -> Optional[int]:
        return int(0.95 * sizes_of(refs)["the most audio, padding counted"]) if refs else None


def scan_for_oom(
    data: Any,
    train_cuts: Any,
    model: nn.Module,
    loss_of: Callable[[Dict[str, Any]], torch.Tensor],
    device: torch.device,
    world: SingleProcess,
) -> None:
    """Find the largest batches of the first epoch and try them; all ranks try the same.

    Args:
      data: the data module.
      train_cuts: training cuts.
      model, loss_of, device: see :class:`OomScan`.
      world: the processes that train together.

    Raises:
      UserError: memory does not suffice.
    """
    loader = data.train_dataloader(train_cuts, 1, bucket_run=1)
    loader.sampler.first, loader.sampler.step = 0, 1  # not only this rank's
    began = time.monotonic()
    extremes = world.from_main(find_extremes(loader.sampler) if world.is_main else None)
    logging.info("Looked for the largest of the batches in %.1f s", time.monotonic() - began)
    OomScan(model, loss_of, loader.dataset.__getitem__, device, data.opts.max_duration).run(extremes)
