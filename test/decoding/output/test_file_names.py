"""Result files keep the names that users' scripts look for."""

import json
from pathlib import Path

import pytest

from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.file_names import offline_files, streaming_files
from asr_core.decoding.registry import METHODS

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/result_names.json").read_text(encoding="utf-8"))
CHECKPOINT = {
    "epoch": 30,
    "iter": 0,
    "avg": 15,
    "use_averaged_model": True,
    "use_ema": False,
    "exp_dir": "exp",
    "label": "",
}
ENCODER = {"context_size": 2, "causal": False, "chunk_size": -1, "left": -1}
CHUNK = (32, 128)  # of streaming, where a variation has none


def split(variation):
    """The values of a variation as those of encoder, search, and the rest."""
    values = GOLDEN["variations"][variation]
    encoder = {name: values.get(name, default) for name, default in ENCODER.items()}
    search = {n: v for n, v in values.items() if n in SearchOptions.__dataclass_fields__}
    return encoder, search, {**CHECKPOINT, **values}


@pytest.mark.parametrize("method", METHODS)
def test_offline_names(method):
    for entry in GOLDEN["offline"][method]:
        for variation in entry["variations"]:
            encoder, search, params = split(variation)
            opts = SearchOptions(decoding_method=method, **search)
            check(offline_files(params, opts, *encoder.values()), entry)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.streaming])
def test_streaming_names(method):
    for entry in GOLDEN["streaming"][method]:
        for variation in entry["variations"]:
            encoder, search, params = split(variation)
            opts = SearchOptions(decoding_method=method, **search)
            chunk = (encoder["chunk_size"], encoder["left"]) if encoder["causal"] else CHUNK
            check(streaming_files(params, opts, *chunk), entry)


def check(files, expected):
    names = {name: getattr(files, name) for name in ("recogs", "errs", "summary", "key")}
    names["folder"] = str(files.folder)
    assert names == {name: value for name, value in expected.items() if name != "variations"}
