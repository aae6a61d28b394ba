"""Result files keep the names that users' scripts look for."""

import dataclasses
import json
from pathlib import Path

import pytest

from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.file_names import offline_files, streaming_files
from asr_core.decoding.registry import METHODS
from asr_core.decoding.resource_loading import names_neural_lm
from asr_core.encoders.chunk_options import Chunk
from asr_core.lm.options import LmOptions
from asr_core.models.checkpoint_options import CheckpointOptions

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/result_names.json").read_text(encoding="utf-8"))
CHUNK = Chunk(32, 128)  # of streaming, where a variation has none


def options(method, variation):
    """The values of a variation, as options of the search, the checkpoint and a language model."""
    values = {"exp_dir": "exp", "decoding_method": method, **GOLDEN["variations"][variation]}
    chunk = Chunk(values["chunk_size"], values["left"]) if values.get("causal") else None
    kinds = (SearchOptions, CheckpointOptions, LmOptions)
    return values, chunk, [dataclasses.replace(cls(), **select(cls, values)) for cls in kinds]


def select(cls, values):
    return {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}


@pytest.mark.parametrize("method", METHODS)
def test_offline_names(method):
    for entry in GOLDEN["offline"][method]:
        for variation in entry["variations"]:
            values, chunk, (search, checkpoint, lm) = options(method, variation)
            files = offline_files(
                METHODS[method],
                search,
                checkpoint,
                chunk=chunk,
                context_size=values.get("context_size", 2),
                neural_lm=names_neural_lm(search, lm),
            )
            check(files, entry)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.stream])
def test_streaming_names(method):
    for entry in GOLDEN["streaming"][method]:
        for variation in entry["variations"]:
            values, chunk, (search, checkpoint, _) = options(method, variation)
            files = streaming_files(
                METHODS[method], search, checkpoint, chunk=chunk or CHUNK, label=values.get("label", "")
            )
            check(files, entry)


def check(files, expected):
    names = {name: getattr(files, name) for name in ("recogs", "errs", "summary", "key")}
    names["folder"] = str(files.folder)
    assert names == {name: value for name, value in expected.items() if name != "variations"}


def test_results_of_another_precision_have_names_of_their_own():
    _, _, (search, checkpoint, _) = options("greedy_search", next(iter(GOLDEN["variations"])))
    method = METHODS["greedy_search"]
    for name in (offline_files, streaming_files):
        usual, half = (
            name(method, search, checkpoint, chunk=CHUNK, dtype=d) for d in ("float32", "bfloat16")
        )
        assert name(method, search, checkpoint, chunk=CHUNK) == usual
        for one, other in (
            (usual.recogs, half.recogs),
            (usual.errs, half.errs),
            (usual.summary, half.summary),
        ):
            assert "bfloat16" in other and "float32" not in one
