"""The benchmark of decoding runs with small settings."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import bench_rtfx


def test_small_settings(tmp_path, capsys):
    out = tmp_path / "rtfx"
    options = ["--models", "tiny", "--seconds", "12", "--max-durations", "8", "--vocab-size", "20"]
    options += ["--methods", "greedy_search,modified_beam_search", "--device", "cpu", "--out", str(out)]
    bench_rtfx.main(options)
    report = json.loads((tmp_path / "rtfx.json").read_text())
    assert report["machine"]["audio_seconds"] == pytest.approx(12, abs=0.5)
    rows = [row for row in report["rows"] if "model" in row]
    assert [(row["dtype"], row["method"]) for row in rows] == [
        (dtype, method)
        for dtype in ("float32", "bfloat16")
        for method in ("encoder alone", "greedy_search", "modified_beam_search")
    ]
    assert all(row["rtfx"] > 0 and row["memory"] > 0 for row in rows)
    assert all(row["differ"] == 0 for row in rows if row["dtype"] == "float32")
    assert 0.5 < rows[1]["tokens_per_second"] < 15
    table = (tmp_path / "rtfx.md").read_text()
    assert table in capsys.readouterr().out and table.count("\n| tiny |") == 6


def test_lengths_are_like_librispeech_s():
    lengths = [len(samples) / bench_rtfx.RATE for samples in bench_rtfx.noise(6000, 1)]
    assert sum(lengths) == pytest.approx(6000, abs=1)
    assert sum(lengths) / len(lengths) == pytest.approx(12.3, abs=1) and max(lengths) <= 35


def test_methods_with_language_models_and_graphs():
    options = ["--models", "tiny", "--seconds", "6", "--max-durations", "8", "--vocab-size", "20"]
    methods = ["modified_beam_search_LODR", "ctc-prefix-beam-search-shallow-fusion", "fast_beam_search_LG"]
    rows = bench_rtfx.main(
        [*options, "--methods", ",".join(methods), "--device", "cpu", "--dtypes", "float32"]
    )
    assert [row["method"] for row in rows[2:]] == methods
    assert all(row["tokens_per_second"] > 0 for row in rows[2:])
