"""The options of training that change how a model's layers are computed."""

import torch
from torch import nn

from asr_core.nn.layers import compile_layers, layers_of
from asr_core.nn.recompute import Recomputed
from asr_core.training.options import ProcessOptions
from asr_core.utils.errors import UserError


def change_layers(model: nn.Module, opts: ProcessOptions, device: torch.device) -> None:
    """Let the layers of a model compute as ``--activation-checkpointing`` and ``--compile`` say, in
    place.

    The names in its state dict stay. The front end counts as a layer, except for compilation.

    Args:
      model: the model.
      opts: the options.
      device: where the model is trained.

    Raises:
      UserError: the model has no layers, or they cannot be compiled.
    """
    if opts.compile:
        compile_layers(model, device, training=True)
    if opts.activation_checkpointing == "none":
        return
    layers = list(layers_of(model).values())
    front_end = getattr(model, "encoder_embed", None)
    if isinstance(front_end, nn.Module):
        layers.append(front_end)
    if not layers:
        raise UserError(
            f"--activation-checkpointing {opts.activation_checkpointing}: a {type(model).__name__} "
            "has no lists of layers: leave it out"
        )
    for layer in layers:
        layer.forward = Recomputed(layer.forward, opts.activation_checkpointing == "selective")
