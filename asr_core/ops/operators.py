"""Operators that tracers keep whole.

Kernels take addresses, which the tensors without data that `torch.compile`, `torch.export` and the
ONNX exporter trace models with do not have. An operator is one node to them, with a rule for the
shapes of its results and one for its gradient. Programs that run call the functions themselves:
the way through an operator takes some microseconds more.
"""

from typing import Any, Callable, Optional, TypeVar

import torch
from torch import Tensor

from asr_core.ops.cpu.dispatch import dense

F = TypeVar("F", bound=Callable[..., Any])


def operator(
    name: str,
    fake: Callable[..., Any],
    gradient: Optional[Callable[..., Any]] = None,
    keep: Optional[Callable[..., None]] = None,
) -> Callable[[F], F]:
    """Register a function of tensors and numbers as the operator ``asr_core::name``.

    The function's annotations are the operator's schema; its results share no memory with its
    arguments.

    Args:
      name: the operator's name.
      fake: takes the same arguments; returns empty tensors like the results.
      gradient: takes the context and the gradients of the results; returns those of the arguments,
        by operators. None: the operator has no gradient.
      keep: takes the context, the tuple of arguments and the results; keeps in the context what
        ``gradient`` needs.
    """

    def register(function: F) -> F:
        made: Any = torch.library.custom_op(f"asr_core::{name}", function, mutates_args=())
        made.register_fake(fake)
        if gradient is not None:
            made.register_autograd(gradient, setup_context=keep)
        return made

    return register


def like_first(x: Tensor, *_: object) -> Tensor:
    """Return an empty tensor laid out as :func:`asr_core.ops.cpu.dispatch.dense` makes x (...): the
    rule for operators of one result like their first argument.
    """
    return torch.empty_like(dense(x))


def is_traced() -> bool:
    """Return whether operations are recorded or only counted, rather than just run: by a compiler,
    or under a mode such as that of ``make_fx`` or of tensors without data, which sees operators
    alone.
    """
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def is_exported() -> bool:
    """Return whether `torch.export` traces the program.

    What it makes is run elsewhere, so that it should hold torch's own operations alone.
    """
    # What `torch.compiler.is_exporting` returns. Compilers took that for true before torch 2.13.
    return bool(getattr(torch.compiler, "_is_exporting_flag", False))
