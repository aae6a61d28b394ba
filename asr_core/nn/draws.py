"""Chance that is drawn before a layer runs, for compilers.

What a compiler makes of a layer holds tensors and numbers that do not change, and no decisions that
Python takes by chance: each would be a graph of its own. In a layer that is compiled for training,
the modules that take decisions therefore draw before the forward pass, in the order in which they
would act in it, so from the same random numbers: tensors, which are inputs of the graph, and
numbers, which lie on the host in a table that is an input, too, and which only operators read, when
they run.
"""

import contextlib
from typing import ClassVar, Iterator, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn

_WIDTH = 6  # numbers that a module may draw


class Drawn(NamedTuple):
    """What a module has drawn for one forward pass.

    Attributes:
      numbers: for its operator, at most six.
      tensor: on the device, or None.
    """

    numbers: Sequence[float] = ()
    tensor: Optional[Tensor] = None


class Chance(nn.Module):
    """A module that decides by chance what it does in training.

    Attributes:
      draws: where its decisions are found; None: it takes them itself.
      index: its number there.
    """

    draws: ClassVar[Optional["Draws"]] = None
    index: ClassVar[int] = 0

    def draw(self, x: Tensor) -> Drawn:
        """Decide for the layer's input x (T, N, C)."""
        raise NotImplementedError


class Draws:
    """The decisions of a layer's modules in the forward pass that is under way.

    Args:
      parts: the modules, in the order in which they act; from now on they find their decisions
        here.

    Attributes:
      table: (number of modules, 6) float64 on the host, the numbers.
      tensors: of each module, or None.
    """

    def __init__(self, parts: Sequence[Chance]) -> None:
        self.parts = list(parts)
        self.table: Tensor = torch.zeros(0)
        self.tensors: List[Optional[Tensor]] = []
        self.rows: List[List[float]] = []
        for i, part in enumerate(self.parts):
            part.__dict__.update(draws=self, index=i)

    @contextlib.contextmanager
    def before(self, x: Tensor) -> Iterator[None]:
        """Draw for the layer's input x (T, N, C); return the context of its forward pass."""
        self.rows, self.tensors = [], []
        for part in self.parts:
            numbers, tensor = part.draw(x)
            self.rows.append([*numbers, *[0.0] * (_WIDTH - len(numbers))])
            self.tensors.append(tensor)
        self.table = torch.tensor(self.rows, dtype=torch.float64)
        try:
            yield
        finally:
            self.tensors = []  # the backward pass keeps what it needs


def given(part: Chance) -> Tensor:
    """Return the tensor that a module has drawn."""
    assert part.draws is not None
    tensor = part.draws.tensors[part.index]
    assert tensor is not None
    return tensor
