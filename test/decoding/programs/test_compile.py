"""decode.py --compile 1 finds what it finds without."""

import functools

import torch
from decode_programs import hypotheses, run
from torch._dynamo.utils import counters

from asr_core.bin import decode
from asr_core.decoding import run_offline
from asr_core.nn.layers import compile_layers


def test_the_same_transcripts(world, monkeypatch):
    # layers are traced as ever, but run without a compiler for C++
    monkeypatch.setattr(run_offline, "compile_layers", functools.partial(compile_layers, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    found = []
    for more in ([], ["--compile", "1"]):
        run(decode, world, False, "--test-sets", "test-b", *more)
        (recogs,) = (world / "exp-False" / "greedy_search").glob("recogs-test-b-*.txt")
        found.append(hypotheses(recogs))
        recogs.unlink()
    assert found[0] == found[1] and len(found[0]) == 2
    assert counters["stats"]["unique_graphs"] > 1 and not counters["graph_break"]
    torch._dynamo.reset()
