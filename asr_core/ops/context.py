"""The context that torch.autograd hands to the forward and backward passes of a function."""

from typing import Any, Protocol, Tuple

from torch import Tensor


class Context(Protocol):
    """Interface of :class:`torch.autograd.function.FunctionCtx`.

    The forward pass sets further attributes for the backward pass.

    Attributes:
      saved_tensors: what :meth:`save_for_backward` got (None among them stays None).
      needs_input_grad: one entry per argument of the forward pass.
    """

    saved_tensors: Tuple[Any, ...]
    needs_input_grad: Tuple[bool, ...]

    def save_for_backward(self, *tensors: Any) -> None:
        """Save tensors, which may be None, for the backward pass."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Declare that no gradient flows into these outputs."""

    def set_materialize_grads(self, value: bool) -> None:
        """Choose between zeros and None for gradients of outputs that were not used."""

    def __getattr__(self, name: str) -> Any:
        """Return what the forward pass set."""

    def __setattr__(self, name: str, value: object) -> None:
        """Keep a non-tensor value for the backward pass."""
