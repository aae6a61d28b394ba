"""Small batches of data for tests: their options, their cuts, whether two are equal."""

import torch
from lhotse import CutSet

from asr_core.data.cut_refs import load_cut
from asr_core.data.options import DataOptions


def data_options(**kwargs) -> DataOptions:
    """Options of small batches, loaded in this process, all at their own level."""
    usual = {
        "max_duration": 6.0,
        "num_buckets": 3,
        "num_workers": 0,
        "drop_last": False,
        "max_unreadable": 1.0,
    }
    return DataOptions(**{**usual, **kwargs})


def ids(batch):
    """The ids of a batch's cuts."""
    return [c.id for c in batch["supervisions"]["cut"]]


def same(a, b):
    """Whether two batches have the same cuts, inputs and position."""
    return ids(a) == ids(b) and torch.equal(a["inputs"], b["inputs"]) and a["batch_idx"] == b["batch_idx"]


def names(stream, epoch=None):
    """The ids of a stream's cuts in order."""
    return [load_cut(ref).id for _, ref in stream.items(epoch)]


def lazy(folder, name):
    """The cuts of a manifest in a folder, read lazily."""
    return CutSet.from_jsonl_lazy(folder / f"{name}.jsonl.gz")
