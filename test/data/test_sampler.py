"""Samplers: full batches of similar durations; skipping loads nothing."""

import time

import numpy as np
from batches import data_options, lazy
from lhotse import CutSet

from asr_core.data import stream as streams
from asr_core.data.cut_refs import load_cut
from asr_core.data.module import AsrDataModule
from asr_core.data.sampler import BucketSampler, duration_bins
from asr_core.data.stream import open_stream


def test_batches_respect_the_limit_and_share_lengths(corpora):
    stream = open_stream(lazy(corpora, "b"), None)
    bins = duration_bins(stream, 4)
    assert len(bins) == 3
    batches = [[load_cut(r) for r in refs] for _, refs in BucketSampler(stream, 1, 20.0, bins)]
    assert all(len(b) * max(c.duration for c in b) <= 20.0 for b in batches) and sum(map(len, batches)) == 60
    padding = [1 - sum(c.duration for c in b) / (len(b) * max(c.duration for c in b)) for b in batches]
    mixed = [[load_cut(r).duration for r in refs] for _, refs in BucketSampler(stream, 1, 20.0, [])]
    assert np.mean(padding) < 0.15 < np.mean([1 - sum(b) / (len(b) * max(b)) for b in mixed])
    full = [refs for _, refs in BucketSampler(stream, 1, 20.0, bins, drop_last=True)]
    assert len(full) < len(batches) and all(len(refs) >= 3 for refs in full)


def test_a_cut_longer_than_a_batch_is_one_alone(corpora):
    stream = open_stream(lazy(corpora, "c"), None)
    assert [len(refs) for _, refs in BucketSampler(stream, 1, 0.5, [])] == [1] * 10


def test_without_shuffling_the_order_is_that_of_the_manifest(corpora):
    stream = open_stream(lazy(corpora, "a"), None)
    got = [load_cut(r).id for _, refs in BucketSampler(stream, None, 10.0, []) for r in refs]
    assert got == [f"a{i:02d}" for i in range(30)]


def test_batches_at_hand_at_the_same_time_are_alike(corpora):
    stream = open_stream(lazy(corpora, "b"), None)
    bins = duration_bins(stream, 3)
    bucket = [
        int(np.searchsorted(bins, load_cut(refs[0]).duration))
        for _, refs in BucketSampler(stream, 1, 10.0, bins, drop_last=True, bucket_run=2)
    ]
    pairs = list(zip(bucket[::2], bucket[1::2]))
    assert (
        sum(a == b for a, b in pairs) >= len(pairs) - 2 and len(set(bucket)) == 3
    )  # but for where a bucket runs out


def test_skipping_loads_nothing(feature_cuts, monkeypatch):
    module = AsrDataModule(data_options())
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    module.survey(cuts)
    monkeypatch.setattr(streams, "view_of_line", None)  # would fail if a line were parsed
    sampler = module.train_dataloader(cuts, 1, skip_batches=5).sampler
    began = time.perf_counter()
    assert next(iter(sampler))[0] == 5 and time.perf_counter() - began < 1.0
