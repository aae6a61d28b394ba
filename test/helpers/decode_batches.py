"""Batches of features for decoding."""

from types import SimpleNamespace

import torch

from asr_core.decoding.encoding import collate


def batch_of(features):
    """A batch as the data module makes it."""
    x, lens = collate(features)
    cuts = [
        SimpleNamespace(id=str(i), supervisions=[], duration=len(f) / 100) for i, f in enumerate(features)
    ]
    sup = {"sequence_idx": torch.arange(len(x)), "start_frame": torch.zeros_like(lens), "num_frames": lens}
    return {"inputs": x, "supervisions": {**sup, "cut": cuts}}
