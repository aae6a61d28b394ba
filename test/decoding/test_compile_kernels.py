"""Kernels of the searches that are compiled beforehand are those that the searches use."""

import os
import subprocess
import sys
from pathlib import Path

# In a process of its own: here, other tests have called kernels before.
PROGRAM = """
import importlib
import sys
from pathlib import Path
import toy_ctc, toy_graph, toy_search
from numba.core.dispatcher import Dispatcher
from asr_core.decoding.beam_options import BeamOptions, FastBeamOptions
from asr_core.decoding.compile_kernels import use_kernels
from asr_core.decoding.ctc import nbest
from asr_core.decoding.ctc.graph_search import intersect
from asr_core.decoding.ctc.prefix_beam import ctc_prefix_beam_search
from asr_core.decoding.graph.fsa import Fsa
from asr_core.decoding.transducer import fast_beam, fast_beam_nbest

MODULES = [f"asr_core.ops.cpu.{n}" for n in ("ctc_graph", "ctc_prefix", "fast_beam", "lattice")]
MODULES.append("asr_core.lm.ngram_kernels")

def compiled():
    return {
        f"{module}.{name}": sorted(map(str, value.signatures))
        for module in MODULES
        for name, value in vars(importlib.import_module(module)).items()
        if isinstance(value, Dispatcher) and value.py_func.__module__ == module
    }

use_kernels()
before = compiled()

folder = Path(sys.argv[1])
toy_graph.word_graph(1, vocab_size=5).write(folder / "graph.fst.txt")
graph = Fsa.read(folder / "graph.fst.txt").with_words(toy_graph.WORDS)
x = toy_ctc.frames(2, 9, 5)
lens = x.new_tensor([9, 4]).long()
assert len(ctc_prefix_beam_search(toy_ctc.MODEL, x, lens, BeamOptions(beam_size=3))) == 2
for lattice in intersect(x, lens, graph):
    assert nbest.draw(lattice.pruned(5), graph, 4, 0.5)
    assert lattice.total_score(lattice.labels(graph.output), (1,), log_sum=False) < 0
for size in (1, 2, None):
    model = toy_search.small_model(context_size=size)
    batch, lens = toy_search.random_batch()
    accepted = Fsa.read(folder / "graph.fst.txt")
    keep = accepted.label > 0
    tokens = toy_graph.fsa_of(list(zip(*(column[keep] for column in accepted.arcs()))), {0: 0.0})
    for g in (None, tokens):
        assert fast_beam.fast_beam_search(model, batch, lens, FastBeamOptions(), g)
        assert fast_beam_nbest.fast_beam_nbest(model, batch, lens, FastBeamOptions(), g)
    search = fast_beam.StreamingFastBeamSearch(model)
    search.advance([search.new_stream() for _ in lens], batch, lens)
lm, _ = toy_graph.ngram(folder)
lm.score(lm.initial_state(), 1)
lm.score_batch([0, 0], [1, 2])

after = compiled()
assert sum(bool(v) for v in after.values()) >= 12, after
assert after == before, {name: (before[name], after[name]) for name in after if after[name] != before[name]}
"""


def test_no_search_compiles_anything_afterwards(tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "test" / "helpers")])}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
