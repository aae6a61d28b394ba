"""Hooks that name the first module where a number stops being finite; registered only when asked for, because each looks at a tensor."""

import logging
from typing import Any, Dict, Iterator, List

import torch
from torch import Tensor, nn


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a module's input or output: a tensor, or tuples, lists and dicts of them."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


class InfCheck:
    """Warns of the first module in each step whose output is not finite, whose output's gradient, and the first parameter's gradient.

    Args:
      model: its modules get hooks.

    Attributes:
      found: what was found in this step, by kind: output, gradient, parameter gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        self.found: Dict[str, str] = {}
        self._handles: List[Any] = []
        for name, module in model.named_modules():
            self._handles.append(module.register_forward_hook(self._forward_hook(name or "model")))
        for name, p in model.named_parameters():
            if p.requires_grad:
                self._handles.append(p.register_hook(self._tensor_hook("parameter gradient", name)))

    def new_step(self) -> None:
        """Begin a step: forget what the last one had."""
        self.found.clear()

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _forward_hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for value in tensors_in(output):
                if "output" not in self.found and not _finite(value):
                    came_in = not all(_finite(v) for v in tensors_in(inputs))
                    self._tell("output", name + (", whose input was not finite already" if came_in else ""))
                if value.requires_grad:
                    value.register_hook(self._tensor_hook("gradient", name))

        return hook

    def _tensor_hook(self, kind: str, name: str) -> Any:
        def hook(grad: Tensor) -> None:
            if kind not in self.found and not _finite(grad):
                self._tell(kind, name)

        return hook

    def _tell(self, kind: str, name: str) -> None:
        self.found[kind] = name
        logging.warning("the first %s that is not finite: %s", kind, name)


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())
