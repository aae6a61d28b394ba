"""Streams of cuts, read lightly: a sampler sees durations and references, see ``cut_refs``.

The lines of a manifest stay bytes until they are in a batch. The first pass keeps what it finds out
about each (its duration, whether it can be used), so that later passes, such as the one to the
middle of an interrupted epoch, need not even parse them.
"""

import random
from array import array
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Dict, Generator, Iterator, List, Optional, Sequence, Set, Tuple

from lhotse import CutSet, lazy
from lhotse.shar.readers.lazy import LazySharIterator

from asr_core.data.cut_refs import CutRef, LineRef, SharRef, at_speed
from asr_core.data.cut_rules import DUPLICATE
from asr_core.data.cut_summary import CutSummary, summary_of, view_of_line
from asr_core.data.filter import CutFilter
from asr_core.data.manifest_lines import NOT_A_CUT, not_a_cut, open_lines
from asr_core.data.sources import check_sources
from asr_core.utils.errors import UserError

_CHUNK = 512  # cuts that are tokenized together: enough for SentencePiece to work at full speed
_DROPPED = -1.0  # replaces the duration of a cut that cannot be used

Item = Tuple[float, CutRef]  # seconds, and the cut


class CutStream:
    """Usable cuts in a fixed order, which may depend on the epoch."""

    @property
    def tokens(self) -> int:
        """Number of tokens of all usable cuts; known after the first complete pass."""
        raise NotImplementedError

    @property
    def number(self) -> int:
        """Number of usable cuts; 0 before the first complete pass."""
        raise NotImplementedError

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
        """Yield (seconds, reference) of each usable cut; ``epoch`` None: in stored order."""
        raise NotImplementedError

    def with_speed(self, speed: float) -> "CutStream":
        """Return the same cuts played faster (above 1) or slower (below 1)."""
        raise NotImplementedError

    def survey(self) -> Tuple[int, float]:
        """Return the number of usable cuts of one epoch, and their seconds."""
        durations = [duration for duration, _ in self.items(1)]
        return len(durations), sum(durations)


class _Indexed(CutStream):
    """A stream that records the durations of its cuts in its first complete pass."""

    def __init__(self, keep: Optional[CutFilter]) -> None:
        self.keep = keep
        self._durations: "Optional[array[float]]" = None
        self._tokens = 0
        self._allow_commands = keep is not None and keep.opts.allow_commands

    @property
    def tokens(self) -> int:
        """See :class:`CutStream`."""
        return self._tokens

    @property
    def number(self) -> int:
        """See :class:`CutStream`."""
        return 0 if self._durations is None else sum(seconds >= 0 for seconds in self._durations)

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
        """See :class:`CutStream`."""
        if self._durations is not None:
            return ((seconds, ref) for seconds, ref in zip(self._durations, self._refs()) if seconds >= 0)
        return self._first_pass()

    def _refs(self) -> Iterator[CutRef]:
        raise NotImplementedError

    def _view(self, ref: CutRef, number: int) -> CutSummary:
        """Return the part of a cut that :class:`CutFilter` looks at.

        Args:
          ref: the cut.
          number: of its line, from 1, for messages.
        """
        raise NotImplementedError

    def _first_pass(self) -> Iterator[Item]:
        durations, tokens, refs = array("d"), 0, self._refs()
        seen: Set[int] = set()  # hashes of ids, which take less memory
        while chunk := list(islice(refs, _CHUNK)):
            views = [self._view(ref, len(durations) + i) for i, ref in enumerate(chunk, 1)]
            counts = self._count_tokens(views, seen)
            for view, count, ref in zip(views, counts, chunk):
                durations.append(view.duration if count is not None else _DROPPED)
                if count is not None:
                    tokens += count
                    yield view.duration, ref
        self._durations, self._tokens = durations, tokens

    def _count_tokens(self, views: Sequence[CutSummary], seen: Set[int]) -> List[Optional[int]]:
        """Return the tokens of each cut, None for unusable ones; add their ids to ``seen``."""
        if self.keep is None:
            return [0] * len(views)
        fresh = []
        for view in views:
            key = hash(view.id)
            fresh.append(key not in seen)
            seen.add(key)
        counts = iter(self.keep.count_tokens([view for view, new in zip(views, fresh) if new]))
        for view, new in zip(views, fresh):
            if not new:
                self.keep.report.add_again(view.id, DUPLICATE)
        return [next(counts) if new else None for new in fresh]


class LineStream(_Indexed):
    """The cuts of a ``.jsonl.gz`` manifest."""

    def __init__(self, path: Path, keep: Optional[CutFilter], speed: float = 1.0) -> None:
        super().__init__(keep)
        self.path = path
        self.speed = speed

    def _refs(self) -> Iterator[CutRef]:
        with open_lines(self.path) as lines:
            for line in lines:
                yield LineRef(line, self.speed)

    def _view(self, ref: CutRef, number: int) -> CutSummary:
        if not isinstance(ref, (LineRef, SharRef)):
            return summary_of(ref)
        try:
            return view_of_line(ref.line, ref.speed, self._allow_commands)
        except NOT_A_CUT as e:
            raise not_a_cut(self.path, number, ref.line, e) from e
        except UserError as e:
            raise UserError(f"{self.path}:{number}: {e}") from e

    def with_speed(self, speed: float) -> "LineStream":
        """See :class:`CutStream`."""
        return LineStream(self.path, self.keep, self.speed * speed)


class CutsStream(_Indexed):
    """Cuts that come as objects, from memory or through lhotse's own transformations."""

    def __init__(self, cuts: CutSet, keep: Optional[CutFilter]) -> None:
        super().__init__(keep)
        self.cuts = cuts

    def _refs(self) -> Iterator[CutRef]:
        return iter(self.cuts)

    def _view(self, ref: CutRef, number: int) -> CutSummary:
        assert not isinstance(ref, (LineRef, SharRef)), "these are cuts"
        check_sources(ref.to_dict(), self._allow_commands)
        return summary_of(ref)

    def with_speed(self, speed: float) -> "CutsStream":
        """See :class:`CutStream`."""
        return CutsStream(self.cuts.map(partial(at_speed, speed=speed)), self.keep)


class _ShardStream(LineStream):
    """One shard of Lhotse Shar."""

    def __init__(self, shard: Dict[str, Path], keep: Optional[CutFilter], speed: float = 1.0) -> None:
        super().__init__(Path(shard["cuts"]), keep, speed)
        self.shard = shard
        self.fields = tuple((field, str(path)) for field, path in sorted(shard.items()) if field != "cuts")

    def _refs(self) -> Iterator[CutRef]:
        with open_lines(self.path) as lines:
            for position, line in enumerate(lines):
                yield SharRef(line, self.fields, position, self.speed)

    def with_speed(self, speed: float) -> "_ShardStream":
        """See :class:`CutStream`."""
        return _ShardStream(self.shard, self.keep, self.speed * speed)


class ChainStream(CutStream):
    """Several streams, one after another.

    With ``shuffle_seed`` each epoch has another order, as shards need it.
    """

    def __init__(self, streams: Sequence[CutStream], shuffle_seed: Optional[int] = None) -> None:
        self.streams = list(streams)
        self.shuffle_seed = shuffle_seed

    @property
    def tokens(self) -> int:
        """See :class:`CutStream`."""
        return sum(stream.tokens for stream in self.streams)

    @property
    def number(self) -> int:
        """See :class:`CutStream`."""
        return sum(stream.number for stream in self.streams)

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
        """See :class:`CutStream`."""
        streams = list(self.streams)
        if epoch is not None and self.shuffle_seed is not None:
            random.Random(f"{self.shuffle_seed} {epoch}").shuffle(streams)
        return chain.from_iterable(stream.items(epoch) for stream in streams)

    def with_speed(self, speed: float) -> "ChainStream":
        """See :class:`CutStream`."""
        return ChainStream([stream.with_speed(speed) for stream in self.streams], self.shuffle_seed)


class MuxStream(CutStream):
    """Cuts drawn from several streams with given weights, as in lhotse's ``CutSet.mux``.

    The draws differ between epochs. With ``stop_early`` an epoch ends with the first stream that is
    exhausted; each epoch then enters the streams at other places, so that every cut is used at
    times.
    """

    def __init__(
        self, streams: Sequence[CutStream], weights: Sequence[float], seed: int, stop_early: bool
    ) -> None:
        self.streams = list(streams)
        self.weights = list(weights)
        self.seed = seed
        self.stop_early = stop_early
        self._shares = [1.0] * len(self.streams)  # part of each stream that the last epoch used

    @property
    def tokens(self) -> int:
        """See :class:`CutStream`."""
        return round(sum(stream.tokens * share for stream, share in zip(self.streams, self._shares)))

    @property
    def number(self) -> int:
        """See :class:`CutStream`."""
        return round(sum(stream.number * share for stream, share in zip(self.streams, self._shares)))

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
        """See :class:`CutStream`."""
        rng = random.Random(self.seed if epoch is None else f"{self.seed} {epoch}")
        if epoch is None or not self.stop_early:
            yield from self._mixed([stream.items(epoch) for stream in self.streams], rng)
            return
        numbers = [sum(1 for _ in stream.items(epoch)) for stream in self.streams]
        drawn = yield from self._mixed(
            [_rotated(s, epoch, n, rng) for s, n in zip(self.streams, numbers)], rng
        )
        self._shares = [d / max(1, n) for d, n in zip(drawn, numbers)]

    def _mixed(self, sources: List[Iterator[Item]], rng: random.Random) -> Generator[Item, None, List[int]]:
        """Yield items of the sources; return how many came from each."""
        drawn = [0] * len(sources)
        active, weights = list(range(len(sources))), list(self.weights)
        while active:
            chosen = rng.choices(active, weights)[0]
            item = next(sources[chosen], None)
            if item is not None:
                drawn[chosen] += 1
                yield item
            elif self.stop_early:
                break
            else:
                place = active.index(chosen)
                del active[place], weights[place]
        return drawn

    def with_speed(self, speed: float) -> "MuxStream":
        """See :class:`CutStream`."""
        return MuxStream(
            [stream.with_speed(speed) for stream in self.streams], self.weights, self.seed, self.stop_early
        )


def _rotated(stream: CutStream, epoch: int, number: int, rng: random.Random) -> Iterator[Item]:
    """Yield all ``number`` items of a stream, beginning somewhere in it."""
    start = rng.randrange(number) if number else 0
    return chain(islice(stream.items(epoch), start, None), islice(stream.items(epoch), start))


def open_stream(cuts: CutSet, keep: Optional[CutFilter], seed: int = 0) -> CutStream:
    """Return the stream of a CutSet.

    Manifests, Shar folders, their sums and ``CutSet.mux`` are read lightly, anything else as it
    comes.

    Args:
      cuts: a CutSet, lazy or not.
      keep: which cuts to use; None: all.
      seed: seed of the order of shards.
    """
    data = cuts.data if isinstance(cuts, CutSet) else cuts
    if isinstance(data, lazy.LazyManifestIterator):
        return LineStream(Path(data.path), keep)
    if isinstance(data, LazySharIterator):
        return ChainStream([_ShardStream(shard, keep) for shard in data.shards], shuffle_seed=seed)
    if isinstance(data, lazy.LazyIteratorChain):
        return ChainStream([open_stream(part, keep, seed) for part in data.iterators])
    if isinstance(data, lazy.LazyIteratorMultiplexer):
        parts: List[CutStream] = [open_stream(part, keep, seed) for part in data.iterators]
        return MuxStream(parts, data.weights, int(data.seed) + seed, data.stop_early)
    return CutsStream(cuts, keep)


def files_of(cuts: CutSet) -> List[Path]:
    """Return the files that a lazy CutSet reads: its manifests, and those of Shar with their data.

    Cuts in memory have none.
    """
    data = cuts.data if isinstance(cuts, CutSet) else cuts
    if isinstance(data, lazy.LazyManifestIterator):
        return [Path(data.path)]
    if isinstance(data, LazySharIterator):
        return [Path(path) for shard in data.shards for _, path in sorted(shard.items())]
    inner = getattr(data, "iterators", None) or [getattr(data, "iterator", None)]
    return [path for part in inner if part is not None for path in files_of(part)]
