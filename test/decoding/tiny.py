"""A tiny model with lively random weights, for tests of decoding and export."""

import torch

from asr_core.models.options import ModelOptions, build_model

OPTIONS = dict(
    num_encoder_layers="1,2",
    downsampling_factor="1,2",
    feedforward_dim="48",
    num_heads="2",
    encoder_dim="32,48",
    query_head_dim="8",
    value_head_dim="4",
    pos_head_dim="4",
    pos_dim=16,
    encoder_unmasked_dim="24",
    cnn_module_kernel="15,7",
    decoder_dim=32,
    joiner_dim=32,
)
PIECES = ["<blk>", "<sos/eos>", "<unk>", *(f"\u2581W{i}" for i in range(9))]


def tiny_model(causal, seed=0, **options):
    """A model that emits many different tokens on noise-like features."""
    torch.manual_seed(seed)
    model = build_model(ModelOptions(**{**OPTIONS, **options}, causal=causal), vocab_size=len(PIECES))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1:
                p.add_(torch.randn_like(p) * 0.5 / p[0].numel() ** 0.5)
        model.joiner.output_linear.weight.mul_(3)
        model.joiner.output_linear.bias[0] = 1.5
    return model.eval()


def utterances(n, seed=1, dim=80):
    """Features of n utterances of different lengths (T, dim)."""
    generator = torch.Generator().manual_seed(seed)
    lens = torch.randint(5, 260, (n,), generator=generator).tolist()
    return [torch.randn(t, dim, generator=generator) * 3 - 8 for t in lens]
