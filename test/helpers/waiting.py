"""Detection of operations for which a GPU's host must wait, or that a CUDA graph cannot hold."""

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_WAITS = (
    "_local_scalar_dense",
    "item",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "repeat_interleave",
    "equal",
    "bincount",
    "lift_fresh",  # torch.tensor of numbers
    "scalar_tensor",
)


class Waiting(TorchDispatchMode):
    """Notes operations that wait.

    Attributes:
      calls: number of operations.
      found: names of those that wait.
    """

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        name = func.overloadpacket.__name__
        if (
            name in _WAITS
            or (name.startswith("index") and _by_mask(args))
            or name == "where"
            and _number(args)
        ):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def _by_mask(args):
    indices = args[1] if len(args) > 1 and isinstance(args[1], (list, tuple)) else []
    return any(isinstance(i, Tensor) and i.dtype.itemsize == 1 for i in indices)


def _number(args):
    """Whether a condition chooses a number that the host holds."""
    return len(args) == 1 or any(isinstance(a, Tensor) and a.dim() == 0 for a in args)
