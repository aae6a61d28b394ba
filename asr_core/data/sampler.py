"""Batches of cuts of similar duration, drawn at random as a function of the seed."""

import random
from bisect import bisect_right
from collections import deque
from itertools import islice
from typing import Deque, Iterator, List, MutableSequence, Optional, Sequence, Tuple

from torch.utils.data import Sampler

from asr_core.data.cut_refs import CutRef
from asr_core.data.stream import CutStream, Item

_CUTS_FOR_BINS = 10000  # enough to estimate the distribution of durations
_BUFFERED = 5000  # cuts for each bucket, so that batches mix cuts from distant places of a manifest


def duration_bins(stream: CutStream, buckets: int) -> List[float]:
    """Return boundaries of duration buckets with equal amounts of audio.

    They are estimated from the first cuts of ``stream`` in the order in which it is stored.
    """
    durations = sorted(duration for duration, _ in islice(stream.items(), _CUTS_FOR_BINS))
    share = sum(durations) / max(1, buckets)
    bins, filled = [], 0.0
    for duration in durations:
        if filled > share:
            bins.append(duration)
            filled = 0.0
        filled += duration
    return sorted(set(bins))


class _Bucket:
    """Waiting cuts of similar duration; subclasses say in which order they are drawn.

    Attributes:
      items: the waiting cuts.
      seconds: their total duration.
      longest: duration of the longest cut that was ever put here.
    """

    def __init__(self, items: MutableSequence[Item]) -> None:
        self.items = items
        self.seconds = 0.0
        self.longest = 0.0

    def put(self, item: Item) -> None:
        """Add a cut."""
        self.items.append(item)
        self.seconds += item[0]
        self.longest = max(self.longest, item[0])

    def ready(self, max_duration: float) -> bool:
        """Return whether a batch can be filled."""
        return bool(self.items) and self.seconds + self.longest > max_duration

    def draw(self, max_duration: float) -> List[CutRef]:
        """Draw a batch of at most ``max_duration`` seconds, padding counted; one cut at least."""
        batch: List[CutRef] = []
        longest = 0.0
        while self.items:
            item = self._take()
            longest = max(longest, item[0])
            if batch and longest * (len(batch) + 1) > max_duration:
                self._put_back(item)
                break
            batch.append(item[1])
            self.seconds -= item[0]
        return batch

    def _take(self) -> Item:
        raise NotImplementedError

    def _put_back(self, item: Item) -> None:
        raise NotImplementedError


class _OrderedBucket(_Bucket):
    """A bucket whose cuts are drawn in the order in which they came."""

    def __init__(self) -> None:
        self._queue: Deque[Item] = deque()
        super().__init__(self._queue)

    def _take(self) -> Item:
        return self._queue.popleft()

    def _put_back(self, item: Item) -> None:
        self._queue.appendleft(item)


class _ShuffledBucket(_Bucket):
    """A bucket whose cuts are drawn at random."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        super().__init__([])

    def _take(self) -> Item:
        i = self.rng.randrange(len(self.items))
        self.items[i], self.items[-1] = self.items[-1], self.items[i]
        return self.items.pop()

    def _put_back(self, item: Item) -> None:
        self.items.append(item)


class BucketSampler(Sampler):
    """One epoch of batches from a stream of cuts, after lhotse's DynamicBucketingSampler.

    A buffer of cuts, divided into buckets of similar duration, is kept full; each batch comes from
    a bucket chosen at random among those that hold enough. Unlike lhotse's sampler this one never
    builds a cut: to skip to the middle of an epoch it makes the same draws without loading
    anything.

    Args:
      stream: usable cuts.
      epoch: which epoch; None for the order in which the cuts are stored (nothing is shuffled).
      max_duration: seconds in a batch, padding counted.
      bins: boundaries of the buckets; empty: one bucket, so that durations are mixed.
      seed: seed of the draws.
      drop_last: leave out batches that are not full.
      bucket_run: number of consecutive batches that come from one bucket.
      first, step: give only the batches at positions first, first + step, ... of the epoch.

    Yields:
      (position in the epoch, references of the cuts, see :func:`~asr_core.data.cut_refs.load_cut`).
    """

    def __init__(
        self,
        stream: CutStream,
        epoch: Optional[int],
        max_duration: float,
        bins: Sequence[float],
        *,
        seed: int = 0,
        drop_last: bool = False,
        bucket_run: int = 1,
        first: int = 0,
        step: int = 1,
    ) -> None:
        self.stream = stream
        self.epoch = epoch
        self.max_duration = max_duration
        self.bins = list(bins)
        self.seed = seed
        self.drop_last = drop_last
        self.bucket_run = bucket_run
        self.first = first
        self.step = step

    def __iter__(self) -> Iterator[Tuple[int, List[CutRef]]]:
        return islice(enumerate(self._batches()), self.first, None, self.step)

    def _batches(self) -> Iterator[List[CutRef]]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        buckets: List[_Bucket] = [
            _OrderedBucket() if self.epoch is None else _ShuffledBucket(rng)
            for _ in range(len(self.bins) + 1)
        ]
        items = self.stream.items(self.epoch)
        wanted = _BUFFERED * max(len(buckets), 10)
        bucket, left = buckets[0], 0
        while True:
            for item in islice(items, wanted):
                buckets[bisect_right(self.bins, item[0])].put(item)
            if not (left and bucket.ready(self.max_duration)):
                bucket, left = self._choose(buckets, rng), self.bucket_run
            if not bucket.items:
                return
            left -= 1
            batch = bucket.draw(self.max_duration)
            yield batch
            wanted = len(batch)

    def _choose(self, buckets: Sequence[_Bucket], rng: random.Random) -> _Bucket:
        """Choose a bucket that can fill a batch; an empty one at the end of the epoch."""
        ready = [b for b in buckets if b.ready(self.max_duration)]
        if not ready and not self.drop_last:
            ready = [b for b in buckets if b.items]
        return rng.choice(ready) if ready else _OrderedBucket()
