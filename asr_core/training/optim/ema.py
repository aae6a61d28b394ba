"""Exponential average of a model's weights over the batches of training."""

import contextlib
from typing import Any, Dict, Iterator

from torch import nn

from asr_core.training.optim.averaging import WeightMean


class ModelEma(WeightMean):
    """Average ``mean <- decay * mean + (1 - decay) * weights`` after each batch, corrected for its
    start at zero, in float64.

    The correction (Kingma and Ba 2015, section 3) divides by ``1 - decay^n`` after n batches. Here
    the mean is kept in its corrected form: it moves towards the weights by ``(1 - decay) / (1 -
    decay^n)`` of the way, which for n = 1 is all of it.

    Args:
      model: its state dict's floating-point tensors are averaged.
      decay: at least 0 and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.model = model
        self.decay = decay
        self.updates = 0

    def update(self) -> None:
        """Add the present weights."""
        self.updates += 1
        self._move((1.0 - self.decay) / (1.0 - self.decay**self.updates))

    def restart(self) -> None:
        """Forget all but the present weights."""
        self.updates = 0
        self._move(1.0)

    def checkpoint(self) -> Dict[str, Any]:
        """Return the entries of a checkpoint."""
        return {"model_ema": self.state_dict(), "ema_updates": self.updates}

    def restore(self, content: Dict[str, Any]) -> bool:
        """Continue from a checkpoint.

        Return False if it has no such average, and this one starts from the weights.
        """
        if content.get("model_ema") is None:
            self.restart()
            return False
        self.load_state_dict(content["model_ema"])
        self.updates = int(content["ema_updates"])
        return True

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Give the model the averaged weights within the block, and restore its own afterwards."""
        own = self.model.state_dict()
        kept = {name: value.clone() for name, value in own.items()}
        self.model.load_state_dict(
            {name: value.to(own[name].dtype) for name, value in self.state_dict().items()}
        )
        try:
            yield
        finally:
            self.model.load_state_dict(kept)
