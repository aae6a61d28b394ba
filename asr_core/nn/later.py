"""Numbers that the host asks for before a device has them."""

from typing import Optional

import torch
from torch import Tensor


class Later:
    """A boolean on its way to the host, which need not wait for it yet.

    Args:
      value: boolean scalar on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._event: Optional[torch.cuda.Event] = None
        self._host = value
        if value.is_cuda:
            self._host = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._host.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def get(self) -> bool:
        """Return the value; wait for the device where it has not come that far."""
        if self._event is not None:
            self._event.synchronize()
        return bool(self._host)
