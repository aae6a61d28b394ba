"""Kernels as cases: arguments, the plain torch form, tolerance, and the work that cannot be avoided."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

Sizes = Mapping[str, int]
Outputs = Union[Tensor, Sequence[Optional[Tensor]]]
# Largest error relative to the largest value of a result, against the formula in float64 on the
# same rounded arguments.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1.6e-2, "float16": 2e-3}


class Work(NamedTuple):
    """The least that a computation can do: each input read once, each result written once.

    Attributes:
      read, written: elements of the case's type; float32 ones count twice in half precision.
      flops: multiplications and additions.
      matrix: whether matrix units do them.
      other_bytes: bytes of integers, masks and float32 on top.
    """

    read: float
    written: float
    flops: float
    matrix: bool = False
    other_bytes: float = 0.0

    def bytes(self, itemsize: int) -> float:
        """Return the bytes that go through the memory."""
        return (self.read + self.written) * itemsize + self.other_bytes


class Draw:
    """Makes arguments: always the same, rounded to the type of a case, on its device.

    Args:
      dtype: of floating-point arguments.
      device: where they are.
      seed: of the random numbers.
    """

    def __init__(self, dtype: torch.dtype, device: str, seed: int = 0) -> None:
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, mean: float = 0.0, grad: bool = True) -> Tensor:
        """Return normal numbers, with a gradient unless ``grad`` is false."""
        x = torch.randn(shape, generator=self.generator) * scale + mean
        return x.to(self.device, self.dtype).requires_grad_(grad)

    def float32(self, *shape: int, scale: float = 1.0, mean: float = 0.0, grad: bool = True) -> Tensor:
        """Return normal numbers in float32 whatever the case's type, as parameters are."""
        x = torch.randn(shape, generator=self.generator) * scale + mean
        return x.to(self.device).requires_grad_(grad)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Return int64 numbers in [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator).to(self.device)

    def bernoulli(self, p: float, *shape: int) -> Tensor:
        """Return booleans that are true with probability ``p``."""
        return (torch.rand(shape, generator=self.generator) < p).to(self.device)


@dataclass(frozen=True)
class Case:
    """A kernel, or an operation made of kernels.

    Attributes:
      name: what the tables call it.
      make: returns the arguments; gradients of those that require one are compared.
      ours: the function under test.
      plain: the same in plain torch, for any float type.
      tiny: sizes for the interpreter.
      odd: sizes for the comparison on a GPU: nothing a power of two.
      bench: sizes of a training step of the medium Zipformer on 300 s of audio.
      forward, backward: the work, from the sizes; backward None: there is none.
      dtypes: types in which it is compared.
      slack: factor on the tolerance, for sums of many terms.
      must: whether a Triton kernel has to run.
      bench_dtype: type in which it is timed.
      note: what a reader of the results should know.
      stages: makes what is timed from the arguments, where that is not ``ours``.
    """

    name: str
    make: Callable[[Draw, Sizes], Sequence[Any]]
    ours: Callable[..., Outputs]
    plain: Callable[..., Outputs]
    tiny: Dict[str, int]
    odd: Dict[str, int]
    bench: Dict[str, int]
    forward: Callable[[Sizes], Work]
    backward: Optional[Callable[[Sizes], Work]] = None
    dtypes: Tuple[str, ...] = tuple(TOLERANCES)
    slack: float = 1.0
    must: bool = True
    bench_dtype: str = "bfloat16"
    note: str = ""
    stages: Optional[Callable[[Sequence[Any]], List[Callable[[], Any]]]] = None


def tolerance(case: Case, dtype: str) -> float:
    """Return the largest error of a case, see :data:`TOLERANCES`: kernels add up in float32, so sums
    of many terms cost half precision little more than rounding.
    """
    return TOLERANCES[dtype] * (case.slack if dtype == "float32" else min(case.slack, 3.0))


def tensors(outputs: Outputs) -> List[Tensor]:
    """Return the tensors among the results of a function."""
    each = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    return [x for x in each if isinstance(x, Tensor)]


def exact(args: Sequence[Any]) -> List[Any]:
    """Return the same arguments in float64 on the CPU, each with a gradient where it had one."""

    def one(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        copy = x.detach().cpu()
        if not x.is_floating_point():
            return copy
        return copy.double().requires_grad_(x.requires_grad)

    return [one(x) for x in args]


def cotangents(outputs: Sequence[Tensor], draw: Draw) -> List[Tensor]:
    """Return random gradients of the results that have a gradient."""
    made = []
    for y in outputs:
        g = torch.randn(y.shape, generator=draw.generator)
        made.append(g.to(y.device, y.dtype))
    return made


def with_gradient(outputs: Outputs) -> List[Tensor]:
    """Return the results that have a gradient."""
    return [y for y in tensors(outputs) if y.requires_grad]


def differentiable(args: Sequence[Any]) -> List[Tensor]:
    """Return the arguments that want a gradient."""
    return [x for x in args if isinstance(x, Tensor) and x.requires_grad]
