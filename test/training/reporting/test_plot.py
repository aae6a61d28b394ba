"""The picture of losses: which records become points of it."""

import json
import sys

import pytest

from asr_core.training.reporting.plot import plot_losses

RECORDS = [
    {"type": "train", "batch_idx_train": 1, "tot_loss": 4.0},
    {"type": "train", "batch_idx_train": 2, "tot_loss": None},
    {"type": "bad", "batch_idx_train": 3},
    {"type": "train", "batch_idx_train": 4, "tot_loss": 0.0},
    {"type": "train", "batch_idx_train": 5, "tot_loss": 2.0},
    {"type": "valid", "batch_idx_train": 5, "loss": 1.0},
    {"type": "recovery", "batch_idx_train": 6},
    {"type": "wer", "batch_idx_train": 7, "wer": 12.5},
]


def write(folder, records):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def test_points_lines_and_axes_are_those_of_the_records(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    kept = []
    save = figures.Figure.savefig
    monkeypatch.setattr(figures.Figure, "savefig", lambda f, *a, **k: (kept.append(f), save(f, *a, **k)))
    write(tmp_path, RECORDS)
    assert plot_losses(tmp_path)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    left, right = kept[0].axes
    points = {
        line.get_label(): [list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))]
        for line in [*left.lines, *right.lines]
    }
    # what is not finite or zero has no place on a logarithmic axis
    assert points["training, averaged"] == [[1.0, 5.0], [4.0, 2.0]]
    assert points["validation"] == [[5.0], [1.0]] and points["word errors"] == [[7.0], [12.5]]
    assert [6.0, 6.0] in [x for x, _ in points.values()]  # the recovery
    assert left.get_yscale() == "log"


def test_a_run_without_records_yet_has_an_empty_picture(tmp_path):
    pytest.importorskip("matplotlib")
    write(tmp_path, [])
    assert plot_losses(tmp_path) and (tmp_path / "loss.png").is_file()


def test_without_matplotlib_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    write(tmp_path, RECORDS)
    assert plot_losses(tmp_path) is False and not (tmp_path / "loss.png").exists()
