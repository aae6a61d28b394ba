"""A small model with the first Zipformer, and how it streams."""

import random

import torch

from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.options import from_params

OPTIONS = options_class("zipformer1")
SIZES = dict(
    num_encoder_layers="1,2,1,1,2",
    feedforward_dims="24",
    nhead="2",
    encoder_dims="16,16,20,24,24",
    attention_dims="16",
    encoder_unmasked_dims="12",
    cnn_module_kernels="5,5,7,3,5",
    decoder_dim=16,
    joiner_dim=16,
)


def model_of(**options):
    """A small model with lively weights, in double precision, so that equal is equal."""
    torch.manual_seed(0)
    random.seed(0)
    model = build_model(from_params(OPTIONS, {**SIZES, **options}), vocab_size=11)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return model.double().eval()


def features(*lens):
    torch.manual_seed(1)
    return torch.randn(len(lens), max(lens), 80, dtype=torch.float64), torch.tensor(lens)


def stream(step, model, x, lens, states):
    """Encoder output of all windows, each made by ``step``."""
    outs = []
    for begin in range(0, x.size(1) - model.geometry.trimmed_frames, model.chunk_frames):
        window = x[:, begin : begin + model.window_frames]
        out, _, states = step(
            window, (lens - begin).clamp(model.geometry.trimmed_frames, model.window_frames), states
        )
        outs.append(out)
    return torch.cat(outs, dim=1)
