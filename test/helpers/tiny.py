"""A tiny model with lively random weights, for tests of decoding and export."""

import numpy as np
import torch
from tiny_options import OPTIONS, PIECES

from asr_core.models.build import build_model
from asr_core.models.options import ModelOptions
from asr_core.utils.options import from_params, record_of


def tiny_model(causal, seed=22, **options):
    """A model that emits many different tokens on noise-like features."""
    torch.manual_seed(seed)
    model = build_model(
        from_params(ModelOptions, {**{**OPTIONS, **options}, "causal": causal}), vocab_size=len(PIECES)
    )
    with torch.no_grad():
        for p in model.parameters():
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


def write_run(exp_dir, causal, seed=22):
    """An experiment's folder with epoch-1.pt and tokens.txt, as training leaves it; returns the
    model.
    """
    model = tiny_model(causal, seed)
    record = dict(
        vocab_size=len(PIECES),
        feature_dim=80,
        num_mel_bins=80,
        sample_rate=16000,
        blank_id=0,
        subsampling_factor=4,
    )
    options = record_of(from_params(ModelOptions, {**OPTIONS, "causal": causal}))
    exp_dir.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "optimizer": None, **options, **record}, exp_dir / "epoch-1.pt")
    (exp_dir / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(PIECES)))
    return model


def write_audio(folder, n=4, seed=3):
    """Short wav files of noise bursts; returns their paths."""
    import soundfile

    rng = np.random.default_rng(seed)
    paths = []
    for i in range(n):
        envelope = np.repeat(rng.uniform(0.001, 0.3, 8 + 3 * i), 1600)
        paths.append(folder / f"noise-{i}.wav")
        soundfile.write(paths[-1], (rng.standard_normal(len(envelope)) * envelope).astype(np.float32), 16000)
    return paths
