"""Of each encoder a tiny model that can stream."""

import torch
from tiny_options import HEADS, PIECES, TINY

from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.options import from_params, record_of


def options(name):
    return from_params(options_class(name), {**HEADS, **TINY[name]})


def model_of(name):
    torch.manual_seed(0)
    model = build_model(options(name), len(PIECES))
    with torch.no_grad():
        model.joiner.output_linear.weight.normal_()
    return model.eval()


def checkpoint(name):
    return {
        "model": model_of(name).state_dict(),
        **record_of(options(name)),
        "vocab_size": len(PIECES),
        "feature_dim": 80,
    }


def utterances():
    torch.manual_seed(1)
    return [3 * torch.randn(n, 80) - 8 for n in (150, 97, 61)]
