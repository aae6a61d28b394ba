"""Hooks that name the first module where numbers stop being finite.

Each hook waits for the device to examine a tensor, so they are registered only on request.
"""

import logging
from typing import Callable, Dict, Iterator, List, Optional

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

ModuleHook = Callable[[nn.Module, object, object], None]


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the floating-point tensors in a module's input or output.

    Args:
      value: a tensor, or tuples, lists and dicts that contain some.
    """
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


class InfCheck:
    """Warns of the first module in each step whose output is not finite.

    The same for the gradients of outputs and of parameters.

    Args:
      model: its modules get hooks until :meth:`remove`.

    Attributes:
      found: names of the first modules or parameters of this step, by kind: output, gradient,
        parameter gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        self.found: Dict[str, str] = {}
        self._handles: List[RemovableHandle] = []
        for name, module in model.named_modules():
            self._handles.append(module.register_forward_hook(self._forward_hook(name or "model")))
        for name, p in model.named_parameters():
            if p.requires_grad:
                self._handles.append(p.register_hook(self._tensor_hook("parameter gradient", name)))

    def new_step(self) -> None:
        """Start a step: forget what was found in the last one."""
        self.found.clear()

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _forward_hook(self, name: str) -> ModuleHook:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            for value in tensors_in(output):
                if "output" not in self.found and not _is_finite(value):
                    input_is_finite = all(_is_finite(v) for v in tensors_in(inputs))
                    note = "" if input_is_finite else ", whose input was not finite already"
                    self._report("output", name + note)
                if value.requires_grad:
                    value.register_hook(self._tensor_hook("gradient", name))

        return hook

    def _tensor_hook(self, kind: str, name: str) -> Callable[[Optional[Tensor]], None]:
        def hook(grad: Optional[Tensor]) -> None:  # None where only other outputs of a function are used
            if grad is not None and kind not in self.found and not _is_finite(grad):
                self._report(kind, name)

        return hook

    def _report(self, kind: str, name: str) -> None:
        self.found[kind] = name
        logging.warning("the first %s that is not finite: %s", kind, name)


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())
