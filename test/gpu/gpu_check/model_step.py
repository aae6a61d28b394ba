"""A training step of a model of some size on a made-up batch."""

import random
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from tiny_options import TINY
from torch import Tensor

from asr_core.models import ModelOptions, build_model
from asr_core.nn.scaling import set_batch_count
from asr_core.training.optim.scaled_adam import ScaledAdam, get_parameter_groups_with_lrs
from asr_core.utils.options import from_params
from gpu_check.setup import Setup

VOCAB = 500
_BATCH_COUNT = 20000.0  # of a run that has left its first schedules behind


class Batch(NamedTuple):
    """A batch of features.

    Attributes:
      x: (N, T, 80).
      x_lens: (N,), on the device of x.
      y: tokens.
      seconds: of audio.
    """

    x: Tensor
    x_lens: Tensor
    y: List[List[int]]
    seconds: float


def build(setup: Setup, size: str) -> torch.nn.Module:
    """Build a model in training mode; in the rehearsal a tiny one."""
    torch.manual_seed(0)
    tiny = {**TINY["zipformer"], "causal": False, "decoder_dim": 16, "joiner_dim": 16}
    params: Dict[str, Any] = tiny if setup.small else {"model_size": size}
    model = build_model(from_params(ModelOptions, params), VOCAB)
    set_batch_count(model, _BATCH_COUNT)
    return model.to(setup.device).train()


def batch(setup: Setup, seconds: float = 300.0) -> Batch:
    """Return utterances of 10 to 16 s, of ``seconds`` in all, three tokens a second."""
    lens = [60, 45] if setup.small else [int(1000 + 600 * i / 22) for i in range(23)][::-1]
    while not setup.small and sum(lens) > 100 * seconds:
        lens.pop(len(lens) // 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(lens), max(lens), 80, generator=generator) * 3 - 6
    rng = random.Random(0)
    y = [[rng.randrange(1, VOCAB) for _ in range(max(1, 3 * n // 100))] for n in lens]
    return Batch(x.to(setup.device), torch.tensor(lens, device=setup.device), y, sum(lens) / 100)


def optimizer_of(model: torch.nn.Module) -> ScaledAdam:
    """Return the optimizer of training; its learning rate is so low that the loss stays."""
    groups = get_parameter_groups_with_lrs(model, lr=1e-4, include_names=True)
    return ScaledAdam(groups, lr=1e-4, clipping_scale=2.0)


class Step:
    """A step in stages: forward and loss, backward, optimizer.

    Args:
      setup: sizes and device.
      size: preset of the model.
      dtype: of autocast; None: float32.
    """

    def __init__(self, setup: Setup, size: str, dtype: Optional[torch.dtype]) -> None:
        self.setup, self.dtype = setup, dtype
        self.model, self.batch = build(setup, size), batch(setup)
        self.optimizer = optimizer_of(self.model)
        self.loss: Optional[Tensor] = None
        self.first_loss = 0.0  # of the initial weights; kept by whoever times the step

    def forward(self) -> None:
        """Compute the loss."""
        random.seed(0)
        with torch.autocast(self.setup.device, dtype=self.dtype, enabled=self.dtype is not None):
            losses = self.model(self.batch.x, self.batch.x_lens, self.batch.y)
        self.loss = 0.5 * losses.simple_loss + losses.pruned_loss

    def backward(self) -> None:
        """Compute the gradients."""
        assert self.loss is not None
        self.loss.backward()

    def update(self) -> None:
        """Change the weights."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def stages(self) -> Tuple[Callable[[], None], ...]:
        """The stages in order."""
        return self.forward, self.backward, self.update

    def all(self) -> None:
        """Make one step."""
        for stage in self.stages:
            stage()
