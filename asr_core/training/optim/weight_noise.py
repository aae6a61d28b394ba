"""Variational noise on the weights, redrawn at each step of training (Graves 2011)."""

import contextlib
from typing import Dict, Iterator, List, Mapping, Tuple

import torch
from torch import Tensor, nn

from asr_core.training.optim.shards import local, own_rows

_PRIME = 1_000_003  # larger than a run's number of steps, so that no two seeds share noise


class WeightNoise:
    """Normal noise on all parameters of some modules while a step's gradients are computed.

    The noise depends on the seed and the step alone: it is the same for all batches of a step and
    for all processes, and a resumed run draws what an uninterrupted one would have.

    Args:
      model: the model.
      std_of: standard deviation by name of module; 0 for none.
      start: reference batches from which on there is noise.
      seed: seed of the noise.
    """

    def __init__(self, model: nn.Module, std_of: Mapping[str, float], start: float, seed: int) -> None:
        self.start = start
        self.seed = seed
        self._targets: List[Tuple[nn.Parameter, float]] = []
        self._generators: Dict[torch.device, torch.Generator] = {}
        for name, std in std_of.items():
            if std > 0:
                self._targets += [
                    (p, std) for p in model.get_submodule(name).parameters() if p.is_floating_point()
                ]

    @contextlib.contextmanager
    def on(self, step: int, count: float) -> Iterator[None]:
        """Add noise to the weights within the block.

        The gradients computed there then update the clean weights.

        Args:
          step: steps since the start of training; determines the noise.
          count: the same in reference batches; determines whether there is any.
        """
        if not self._targets or count < self.start:
            yield
            return
        clean = [local(p.detach()).clone() for p, _ in self._targets]
        self._blur(step)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_([local(p) for p, _ in self._targets], clean)

    @torch.no_grad()
    def _blur(self, step: int) -> None:
        """Add the noise of a step."""
        seeded = set()
        for p, std in self._targets:
            generator = self._generators.setdefault(p.device, torch.Generator(p.device))
            if p.device not in seeded:
                seeded.add(generator.manual_seed(self.seed * _PRIME + step).device)
            local(p).add_(own_rows(_normal(p, generator), p), alpha=std)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw standard normal noise."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
