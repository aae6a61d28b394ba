"""Repeated steps of a search as CUDA graphs, and searches kept from one batch to the next."""

from collections import OrderedDict
from typing import Any, Callable, Hashable, List, Optional, Tuple, TypeVar, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from asr_core.decoding.protocol import Transducer

_KEPT = 8  # searches; each holds the frames of a batch
_TRIALS = 3  # of a step before it is recorded
_FEW_ROWS = 32  # above, the number of rows of a search is a multiple of it
S = TypeVar("S")


class Repeated:
    """A step that is repeated, on a GPU as one CUDA graph.

    Args:
      step: gets the number of the repetition; changes tensors in place and never waits for the
        device. (`torch.where` with a number does: it copies the number; `masked_fill` does not.)
        It is tried before it is recorded, so it must change nothing that matters then.
      times: number of repetitions.
      device: where it runs.
    """

    def __init__(self, step: Callable[[int], None], times: int, device: torch.device) -> None:
        def every() -> None:
            for k in range(times):
                step(k)

        # A graph needs no step, and a circle with its owner would keep the memory of both for long.
        recorded = _recorded(every, step, device) if device.type == "cuda" else None
        self._run: Callable[[], None] = every if recorded is None else recorded.replay

    def __call__(self) -> None:
        """Run all repetitions, or add them to the device's queue."""
        self._run()


def _recorded(
    body: Callable[[], None], step: Callable[[int], None], device: torch.device
) -> "torch.cuda.CUDAGraph":
    with torch.cuda.device(device):
        # Libraries allocate workspaces at the first call, and TorchScript compiles at the second,
        # which a recording cannot hold.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_TRIALS):
                step(0)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # not "global": the loader's thread pins memory meanwhile, which would spoil the recording
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            body()
    return graph


class Watch:
    """The host's view of a flag on the device.

    On a GPU each look tells how the flag was at the look before: what was queued since then keeps
    the device busy meanwhile.

    Args:
      device: where the flag is.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._looks = 0
        if self._on_gpu:
            self._seen = torch.zeros(2, dtype=torch.bool, pin_memory=True)
            self._events = [torch.cuda.Event(), torch.cuda.Event()]

    def start(self) -> None:
        """Forget earlier looks."""
        self._looks = 0

    def look(self, flag: Tensor) -> bool:
        """Return whether ``flag`` (1,) was true."""
        if not self._on_gpu:
            return bool(flag)
        now = self._looks % 2
        self._seen[now : now + 1].copy_(flag, non_blocking=True)
        self._events[now].record()
        self._looks += 1
        if self._looks == 1:
            return False
        self._events[1 - now].synchronize()
        return bool(self._seen[1 - now])


class _Same:
    """A key that holds on to what it stands for, so that no other object gets its id."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __hash__(self) -> int:
        return id(self._thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._thing is other._thing


# by joiner, predictor with weights, and key
_searches: "OrderedDict[Tuple[_Same, Hashable, Hashable], Any]" = OrderedDict()
_shared: "WeakValueDictionary[Hashable, Any]" = WeakValueDictionary()


def kept(model: Optional[Transducer], key: Hashable, make: Callable[[], S]) -> S:
    """Return the search that ``make`` made for this key and these weights, or a new one.

    Args:
      model: whose predictor and joiner are searched; None: the search needs neither.
      key: all else that the search depends on.
      make: makes a search.
    """
    joiner, weights = (_Same(None), ()) if model is None else _weights(model)
    whole = (joiner, weights, key)
    if whole in _searches:
        _searches.move_to_end(whole)
    else:
        for old in [k for k in _searches if k[0] == joiner and k[1] != weights]:
            del _searches[old]
        while len(_searches) >= _KEPT:
            _searches.popitem(last=False)
        _searches[whole] = make()
    return cast(S, _searches[whole])


def shared(model: Transducer, make: Callable[[], S]) -> S:
    """Return what ``make`` made for these weights, while a search holds on to it, or a new one."""
    weights = _weights(model)
    found = _shared.get(weights)
    if found is None:
        found = _shared[weights] = make()
    return cast(S, found)


def forget() -> None:
    """Drop all searches, and with them their memory on the device."""
    _searches.clear()
    _shared.clear()


def _weights(model: Transducer) -> Tuple[_Same, Hashable]:
    """Return the joiner, and what changes with the predictor and with the weights of both."""
    weights: List[Tuple[int, int]] = []
    for part in (model.decoder, model.joiner):
        for p in cast(torch.nn.Module, part).parameters():
            weights.append((p.data_ptr(), 0 if p.is_inference() else p._version))
    return _Same(model.joiner), (_Same(model.decoder), tuple(weights))


def rows_for(num: int) -> int:
    """Return the rows of a search for ``num`` utterances: few numbers, so that few are recorded."""
    if num > _FEW_ROWS:
        return -(-num // _FEW_ROWS) * _FEW_ROWS
    return power_of_two(max(num, 8))


def power_of_two(num: int) -> int:
    """Return the first power of two that is not below ``num``."""
    return 1 << max(0, num - 1).bit_length()
