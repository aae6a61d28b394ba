"""Which cuts make up a batch: cuts of similar duration, drawn at random from a buffer; the batches are a function of the seed."""

import random
from bisect import bisect_right
from collections import deque
from itertools import islice
from typing import Any, Deque, Iterator, List, Optional, Sequence, Tuple, Union

from torch.utils.data import Sampler

from asr_core.data.stream import CutStream, Item

_CUTS_FOR_BINS = 10000
_BUFFERED = 5000  # cuts for each bucket


def duration_bins(stream: CutStream, buckets: int) -> List[float]:
    """Boundaries of duration buckets with equal amounts of audio, by the first cuts of ``stream`` as it is stored."""
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
    """Waiting cuts of similar duration; drawn at random, or, without ``rng``, in order."""

    def __init__(self, rng: Optional[random.Random]) -> None:
        self.rng = rng
        self.items: Union[List[Item], Deque[Item]] = [] if rng else deque()
        self.seconds = 0.0
        self.longest = 0.0

    def put(self, item: Item) -> None:
        self.items.append(item)
        self.seconds += item[0]
        self.longest = max(self.longest, item[0])

    def ready(self, max_duration: float) -> bool:
        """Whether a batch can be filled."""
        return bool(self.items) and self.seconds + self.longest > max_duration

    def draw(self, max_duration: float) -> List[Any]:
        """A batch of at most ``max_duration`` seconds, padding counted; one cut at least."""
        batch: List[Any] = []
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
        if self.rng is None:
            return self.items.popleft()  # type: ignore[union-attr]
        i = self.rng.randrange(len(self.items))
        self.items[i], self.items[-1] = self.items[-1], self.items[i]
        return self.items.pop()

    def _put_back(self, item: Item) -> None:
        self.items.append(item) if self.rng else self.items.appendleft(item)  # type: ignore[union-attr]


class BucketSampler(Sampler):
    """One epoch of batches from a stream of cuts, after lhotse's DynamicBucketingSampler, but with light cuts and light steps.

    A buffer of cuts, divided into buckets of similar duration, is kept full; each batch comes from a bucket chosen at random among
    those that hold enough. To skip to the middle of an epoch the same draws are made without loading anything.

    Args:
      stream: usable cuts.
      epoch: which epoch; None for the order in which the cuts are stored (then nothing is shuffled).
      max_duration: seconds in a batch, padding counted.
      bins: boundaries of the buckets; none: one bucket, so that durations are mixed.
      seed: seed of the draws.
      drop_last: leave out batches that are not full.
      bucket_run: so many batches in a row come from one bucket.
      first, step: give the batches at these positions of the epoch alone.

    Yields: (position in the epoch, references of the cuts, see :func:`~asr_core.data.stream.load_cut`).
    """

    def __init__(
        self,
        stream: CutStream,
        epoch: Optional[int],
        max_duration: float,
        bins: Sequence[float],
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

    def __iter__(self) -> Iterator[Tuple[int, List[Any]]]:
        return islice(enumerate(self._batches()), self.first, None, self.step)

    def _batches(self) -> Iterator[List[Any]]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        buckets = [_Bucket(rng if self.epoch is not None else None) for _ in range(len(self.bins) + 1)]
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

    def _choose(self, buckets: List[_Bucket], rng: random.Random) -> _Bucket:
        ready = [b for b in buckets if b.ready(self.max_duration)]
        if not ready and not self.drop_last:
            ready = [b for b in buckets if b.items]
        return rng.choice(ready) if ready else _Bucket(None)
