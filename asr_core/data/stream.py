"""Cuts in order, read lightly: a sampler sees durations; the cut itself is made where its batch is loaded.

A manifest's lines stay bytes until they are in a batch. What the first pass finds out about each (its duration, whether it can be
used) is kept, so that later passes, such as that to the middle of an interrupted epoch, need not even parse them.
"""

import json
import random
from array import array
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Generator, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from asr_core.data.filter import CutFilter
from asr_core.data.manifest import open_lines
from asr_core.data.shar import SharRef, at_speed

_CHUNK = 512  # cuts that are tokenized together
_DROPPED = -1.0

Item = Tuple[float, Any]  # seconds, and what load_cut makes a cut of


class LineRef(NamedTuple):
    """A cut as a line of JSON, at a speed."""

    line: bytes
    speed: float = 1.0

    def cut(self) -> Any:
        from lhotse.serialization import decode_json_line, deserialize_item

        return at_speed(deserialize_item(decode_json_line(self.line)), self.speed)


def load_cut(ref: Any) -> Any:
    """The cut that a stream's item stands for."""
    return ref.cut() if isinstance(ref, (LineRef, SharRef)) else ref


class CutStream:
    """Usable cuts in a fixed order, which may depend on the epoch.

    Attributes:
      tokens: number of tokens of all usable cuts, once they were counted.
    """

    tokens: int = 0

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
        """(seconds, reference) of each usable cut; ``epoch`` None: in the order in which they are stored."""
        raise NotImplementedError

    def with_speed(self, speed: float) -> "CutStream":
        """The same cuts played faster (above 1) or slower (below 1)."""
        raise NotImplementedError

    def survey(self) -> Tuple[int, float]:
        """Number of usable cuts, and their seconds, of one epoch."""
        durations = [duration for duration, _ in self.items(1)]
        return len(durations), sum(durations)


class _Indexed(CutStream):
    """A stream that notes the durations of its cuts in its first complete pass."""

    def __init__(self, keep: Optional[CutFilter]) -> None:
        self.keep = keep
        self._durations: Optional[array] = None

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
        if self._durations is not None:
            return ((seconds, ref) for seconds, ref in zip(self._durations, self._refs()) if seconds >= 0)
        return self._first_pass()

    def _refs(self) -> Iterator[Any]:
        raise NotImplementedError

    def _view(self, ref: Any) -> Any:
        """What :class:`CutFilter` looks at: id, duration, supervisions, num_frames."""
        raise NotImplementedError

    def _first_pass(self) -> Iterator[Item]:
        durations, tokens, refs = array("d"), 0, self._refs()
        while chunk := list(islice(refs, _CHUNK)):
            views = [self._view(ref) for ref in chunk]
            counts = self.keep.count_tokens(views) if self.keep is not None else [0] * len(views)
            for view, count, ref in zip(views, counts, chunk):
                durations.append(view.duration if count is not None else _DROPPED)
                if count is not None:
                    tokens += count
                    yield view.duration, ref
        self._durations, self.tokens = durations, tokens


class LineStream(_Indexed):
    """The cuts of a ``.jsonl.gz`` manifest."""

    def __init__(self, path: Path, keep: Optional[CutFilter], speed: float = 1.0) -> None:
        super().__init__(keep)
        self.path = path
        self.speed = speed

    def _refs(self) -> Iterator[Any]:
        with open_lines(self.path) as lines:
            for line in lines:
                yield LineRef(line, self.speed)

    def _view(self, ref: LineRef) -> Any:
        return view_of_line(ref.line, ref.speed)

    def with_speed(self, speed: float) -> "LineStream":
        return LineStream(self.path, self.keep, self.speed * speed)


class CutsStream(_Indexed):
    """Cuts that come as objects, from memory or through lhotse's own transformations."""

    def __init__(self, cuts: Any, keep: Optional[CutFilter]) -> None:
        super().__init__(keep)
        self.cuts = cuts

    def _refs(self) -> Iterator[Any]:
        return iter(self.cuts)

    def _view(self, ref: Any) -> Any:
        return ref

    def with_speed(self, speed: float) -> "CutsStream":
        return CutsStream(self.cuts.map(partial(at_speed, speed=speed)), self.keep)


class _ShardStream(LineStream):
    """One shard of Lhotse Shar."""

    def __init__(self, shard: Dict[str, Any], keep: Optional[CutFilter], speed: float = 1.0) -> None:
        super().__init__(Path(shard["cuts"]), keep, speed)
        self.shard = shard
        self.fields = tuple((field, str(path)) for field, path in sorted(shard.items()) if field != "cuts")

    def _refs(self) -> Iterator[Any]:
        with open_lines(self.path) as lines:
            for index, line in enumerate(lines):
                yield SharRef(line, self.fields, index, self.speed)

    def with_speed(self, speed: float) -> "_ShardStream":
        return _ShardStream(self.shard, self.keep, self.speed * speed)


class ChainStream(CutStream):
    """One stream after the other; if ``shuffle_seed`` is given, in another order in each epoch (as for shards)."""

    def __init__(self, streams: Sequence[CutStream], shuffle_seed: Optional[int] = None) -> None:
        self.streams = list(streams)
        self.shuffle_seed = shuffle_seed

    @property
    def tokens(self) -> int:  # type: ignore[override]
        return sum(stream.tokens for stream in self.streams)

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
        streams = list(self.streams)
        if epoch is not None and self.shuffle_seed is not None:
            random.Random(f"{self.shuffle_seed} {epoch}").shuffle(streams)
        return chain.from_iterable(stream.items(epoch) for stream in streams)

    def with_speed(self, speed: float) -> "ChainStream":
        return ChainStream([stream.with_speed(speed) for stream in self.streams], self.shuffle_seed)


class MuxStream(CutStream):
    """Cuts drawn from several streams with given weights, as lhotse's ``CutSet.mux`` does, differently in each epoch.

    With ``stop_early`` an epoch ends with the first stream that is exhausted; each epoch then begins another stream's cuts at
    another place, so that all of them have their turn.
    """

    def __init__(
        self, streams: Sequence[CutStream], weights: Sequence[float], seed: int, stop_early: bool
    ) -> None:
        self.streams = list(streams)
        self.weights = list(weights)
        self.seed = seed
        self.stop_early = stop_early
        self._shares = [1.0] * len(self.streams)  # of each stream, in the last epoch that was drawn

    @property
    def tokens(self) -> int:  # type: ignore[override]
        return round(sum(stream.tokens * share for stream, share in zip(self.streams, self._shares)))

    def items(self, epoch: Optional[int] = None) -> Iterator[Item]:
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
        """Items of the sources; returns how many came from each."""
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
                where = active.index(chosen)
                del active[where], weights[where]
        return drawn

    def with_speed(self, speed: float) -> "MuxStream":
        return MuxStream(
            [stream.with_speed(speed) for stream in self.streams], self.weights, self.seed, self.stop_early
        )


def _rotated(stream: CutStream, epoch: int, number: int, rng: random.Random) -> Iterator[Item]:
    """All ``number`` items of a stream, beginning somewhere in it."""
    start = rng.randrange(number) if number else 0
    return chain(islice(stream.items(epoch), start, None), islice(stream.items(epoch), start))


def view_of_line(line: bytes, speed: float = 1.0) -> Any:
    """What a filter must know of a cut in JSON, without building the cut."""
    data = json.loads(line)
    if data.get("type") != "MonoCut":
        return LineRef(line, speed).cut()
    duration = data["duration"] / speed
    features = data.get("features")
    frames = 0
    if features:
        frames = (
            features["num_frames"]
            if abs(features["duration"] - duration) < 1e-4
            else round(duration / features["frame_shift"])
        )
    supervisions = [SimpleNamespace(text=s.get("text")) for s in data.get("supervisions", ())]
    name = data["id"] if speed == 1.0 else f"{data['id']}_sp{speed:g}"
    return SimpleNamespace(
        id=name, duration=duration, supervisions=supervisions, has_features=bool(features), num_frames=frames
    )


def open_stream(cuts: Any, keep: Optional[CutFilter], seed: int = 0) -> CutStream:
    """The stream of a CutSet; manifests, Shar folders, their sums and ``CutSet.mux`` are read lightly, anything else as it comes.

    Args:
      cuts: a CutSet, lazy or not.
      keep: which cuts to use; None: all.
      seed: seed of the order of shards.
    """
    from lhotse import CutSet, lazy
    from lhotse.shar.readers.lazy import LazySharIterator

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
