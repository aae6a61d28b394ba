"""Layers that keep their inputs for the backward pass, and compute the rest a second time there.

The memory of training is mostly that of activations between the forward and the backward pass. A
layer that is computed again needs its inputs alone (Chen et al. 2016, https://arxiv.org/abs/1604.06174);
of all others only one layer at a time has its activations in memory.

The second pass must do as the first did: it draws the same random numbers, of torch and of Python,
and what a layer does for good, as counting batches, is done in the first alone: such code asks
:func:`once`.
"""

import contextlib
import random
from types import TracebackType
from typing import Any, Callable, ContextManager, Iterator, List, Optional, Tuple, Type, TypeVar, cast

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

T = TypeVar("T")


class _Pass:
    """Context of the first or the second pass through a layer.

    Args:
      values: of :func:`once`, in the order of its calls; the first pass fills it.
      inner: context within this one.
    """

    def __init__(self, values: List[object], inner: ContextManager[object]) -> None:
        self.values = values
        self.inner = inner

    def value_of(self, compute: Callable[[], object]) -> object:
        """Compute a value and keep it."""
        self.values.append(compute())
        return self.values[-1]

    def __enter__(self) -> None:
        _PASSES.append(self)
        self.inner.__enter__()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.inner.__exit__(kind, error, trace)
        _PASSES.pop()


class _SecondPass(_Pass):
    """Context of the second pass; it may be entered again, if the backward pass is repeated."""

    def __init__(self, values: List[object], inner: ContextManager[object]) -> None:
        super().__init__(values, inner)
        self._drawn_from = random.getstate()
        self._present = self._drawn_from
        self._done = 0

    def value_of(self, compute: Callable[[], object]) -> object:
        """Return the value of the first pass."""
        self._done += 1
        return self.values[self._done - 1]

    def __enter__(self) -> None:
        self._present, self._done = random.getstate(), 0
        random.setstate(self._drawn_from)
        super().__enter__()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        super().__exit__(kind, error, trace)
        random.setstate(self._present)


# The innermost layer that is being computed comes last. The backward pass may run in a thread of
# its own; the one that called it waits meanwhile.
_PASSES: List[_Pass] = []


def once(compute: Callable[[], T]) -> T:
    """Return what ``compute`` returns; in a layer's second pass, what it returned in the first.

    For what changes a state, or depends on one that may have changed. The value is kept until the
    backward pass, and has no gradient.
    """
    return cast(T, _PASSES[-1].value_of(compute)) if _PASSES else compute()


class Recomputed:
    """The forward pass of a module, computed again in its backward pass.

    Args:
      forward: the module's method.
      keep_products: keep the results of linear maps, which take most of the time.
    """

    def __init__(self, forward: Callable[..., Any], keep_products: bool) -> None:
        self.forward = forward
        self.keep_products = keep_products

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the method returns."""
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(self.forward, *args, use_reentrant=False, context_fn=self._contexts, **kwargs)

    def _contexts(self) -> Tuple[ContextManager[None], ContextManager[None]]:
        inner: Tuple[ContextManager[object], ContextManager[object]] = (contextlib.nullcontext(),) * 2
        if self.keep_products:
            inner = create_selective_checkpoint_contexts(_policy)
        values: List[object] = []
        return _Pass(values, inner[0]), _SecondPass(values, inner[1])


# as _PASSES; not empty: nothing is kept
_NOT_KEPT: List[bool] = []


@contextlib.contextmanager
def products_not_kept() -> Iterator[None]:
    """Return a context in which no results of matrix products are kept, since they are
    overwritten.
    """
    _NOT_KEPT.append(True)
    try:
        yield
    finally:
        _NOT_KEPT.pop()


_LINEAR = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.linear.default)


def _policy(context: object, op: object, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keep the results of linear maps.

    Those of batched products are scores of attention, which are quadratic in the number of frames,
    and which some code overwrites.
    """
    keep = op in _LINEAR and not _NOT_KEPT
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
