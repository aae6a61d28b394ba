"""The layers of a model, found by the names of their lists, and their compilation."""

import enum
import logging
from typing import Any, Callable, Dict, Optional, Sequence, cast

import torch
import torch.fx.experimental._config
from torch import Tensor, nn

from asr_core.nn.draws import Draws
from asr_core.utils.errors import UserError

LISTS = ("layers", "blocks")  # the names of lists of layers
# Graphs of one function: layers differ in width from stack to stack, in masks, and in modes.
_MOST_GRAPHS = 64


class When(enum.Enum):
    """When a layer can be compiled; the attribute ``compiled`` of its class."""

    NEVER = "never"  # most of it is one kernel, which needs a graph for each length
    EVALUATED = "evaluated"  # Python's random draws in training what acts: no part of a graph
    DRAWN = "drawn"  # always, if what its ``chances()`` decide is drawn beforehand
    ALWAYS = "always"


def _when(layer: nn.Module) -> When:
    return When(getattr(layer, "compiled", "evaluated"))


def layers_of(model: nn.Module) -> Dict[str, nn.Module]:
    """Return the elements of all ``nn.ModuleList`` called as :data:`LISTS` says that are in no
    other such list, by name.
    """
    found: Dict[str, nn.Module] = {}
    for name, module in model.named_modules():  # outer modules come before inner ones
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        if name.rpartition(".")[2] in LISTS and isinstance(module, nn.ModuleList):
            found.update((f"{name}.{i}", layer) for i, layer in enumerate(module))
    return found


class Compiled:
    """The forward pass of a layer, compiled for the modes in which it can be.

    Lengths and batch sizes are symbols in its graphs, so that others need no new ones.

    Args:
      layer: the layer.
      training: whether it is to be trained.
      backend: of ``torch.compile``.
    """

    def __init__(self, layer: nn.Module, training: bool, backend: str) -> None:
        self.layer = layer
        self.eager = layer.forward
        self.compiled: Callable[..., Any] = torch.compile(layer.forward, dynamic=True, backend=backend)
        self.when = _when(layer)
        self.draws: Optional[Draws] = None
        if training and self.when is When.DRAWN:
            self.draws = Draws(cast(Any, layer).chances())

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return what the layer's own method returns for its input x and others."""
        if not self.layer.training or self.when is When.ALWAYS:
            return self.compiled(x, *args, **kwargs)
        if self.draws is None:
            return self.eager(x, *args, **kwargs)
        with self.draws.before(x):
            return self.compiled(x, *args, **kwargs)


def compile_layers(
    model: nn.Module, device: torch.device, *, training: bool, backend: str = "inductor"
) -> None:
    """Compile the layers of a model, in place; the names in its state dict stay.

    Args:
      model: the model; an attention decoder's layers are left out.
      device: where it computes.
      training: whether it is to be trained.
      backend: of ``torch.compile``.

    Raises:
      UserError: there is nothing to compile, or torch cannot compile on this machine.
    """
    layers = [layer for name, layer in layers_of(model).items() if not name.startswith("attention_decoder")]
    chosen = [layer for layer in layers if _when(layer) is not When.NEVER]
    if not chosen:
        raise UserError(f"--compile 1: there is nothing to compile in a {_kind(layers, model)}: leave it out")
    if training and all(_when(layer) is When.EVALUATED for layer in chosen):
        raise UserError(
            f"--compile 1: a {_kind(layers, model)} draws in Python which of its parts act on a batch, so "
            "that it can be compiled for decoding alone: leave it out"
        )
    _configure()
    _try_compiler(device, backend)
    for layer in chosen:
        layer.forward = Compiled(layer, training, backend)
    logging.info("%d layers are compiled when they are first used", len(chosen))


def _configure() -> None:
    """Let a graph serve all lengths, and a function have a graph for each kind of layer."""
    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # before torch 2.6
    setattr(config, name, max(getattr(config, name), _MOST_GRAPHS))
    if torch.__version__ < "2.5":
        config.inline_inbuilt_nn_modules = True  # what modules hold may change
    # Sizes that happen to be equal in the first batch, such as its utterances and a layer's heads,
    # would else be taken for the same one.
    shapes: Any = torch.fx.experimental._config
    if hasattr(shapes, "use_duck_shape"):
        shapes.use_duck_shape = False


def _kind(layers: Sequence[nn.Module], model: nn.Module) -> str:
    return type(layers[0] if layers else model).__name__


def _try_compiler(device: torch.device, backend: str) -> None:
    """Compile something small.

    Raises:
      UserError: torch cannot compile on this machine, e.g. without a compiler for C++.
    """

    def double(x: Tensor) -> Tensor:
        return x.sin() + x

    try:
        torch.compile(double, backend=backend)(torch.zeros(8, device=device))
    except Exception as e:  # of many kinds, by what is missing
        reason = next((line for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise UserError(
            f"--compile 1: torch cannot compile for the {device.type} here ({reason}): leave it out"
        ) from e
