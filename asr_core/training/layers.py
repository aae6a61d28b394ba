"""The layers of a model, and the options of training that change how they are computed."""

from typing import Dict, List

from torch import nn

from asr_core.nn.recompute import Recomputed
from asr_core.training.options import ProcessOptions
from asr_core.utils.errors import UserError

LISTS = ("layers", "blocks")  # the names of lists of layers


def layers_of(model: nn.Module) -> List[nn.Module]:
    """Return the front end of a model and its layers.

    They are the ``encoder_embed`` of the model itself, and the elements of all ``nn.ModuleList``
    called as :data:`LISTS` says that are in no other such list.
    """
    found: Dict[str, nn.Module] = {}
    for name, module in model.named_modules():  # outer modules come before inner ones
        if any(name.startswith(f"{outer}.") for outer in found):
            continue
        if name == "encoder_embed":
            found[name] = module
        elif name.rpartition(".")[2] in LISTS and isinstance(module, nn.ModuleList):
            found.update((f"{name}.{i}", layer) for i, layer in enumerate(module))
    return list(found.values())


def change_layers(model: nn.Module, opts: ProcessOptions) -> None:
    """Let the layers of a model compute as ``--activation-checkpointing`` says, in place.

    The names in its state dict stay.

    Raises:
      UserError: the model has no layers.
    """
    if opts.activation_checkpointing == "none":
        return
    layers = layers_of(model)
    if not layers:
        raise UserError(
            f"--activation-checkpointing {opts.activation_checkpointing}: a {type(model).__name__} "
            "has no lists of layers: leave it out"
        )
    for layer in layers:
        layer.forward = Recomputed(layer.forward, opts.activation_checkpointing == "selective")
