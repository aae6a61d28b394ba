"""Word errors of a greedy search at the end of epochs."""

import fake_run
import pytest
import torch
from tiny_program import TINY, train

from asr_core.models.averaging import numbered
from asr_core.training.reporting.writers import read_metrics
from asr_core.training.word_error_metric import WordErrorMetric


def test_word_errors_are_measured_recorded_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    seen = []

    def word_errors(model, batches, max_cuts):
        seen.append((model.training, max_cuts, len(list(batches))))
        return 3, 10, 6

    class Searched(fake_run.FakeRecipe):
        def build_metric(self):
            return WordErrorMetric(word_errors, self.options, num_ranks=self.world_size)

    assert fake_run.run(tmp_path, recipe=Searched, valid_wer_interval=2, valid_wer_cuts=8) == 0
    assert seen == [(False, 8, 2)]
    got = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["type"] == "wer"]
    assert [(r["epoch"], r["wer"], r["errors"], r["cuts"]) for r in got] == [(2, 30.0, 3, 6)]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_word_errors_of_the_program(prepared, tmp_path, capfd):
    assert train(prepared, tmp_path / "a", "--valid-wer-cuts", "1") == 0
    got = [r for r in read_metrics(tmp_path / "a" / "metrics.jsonl") if r["type"] == "wer"]
    assert [r["epoch"] for r in got] == [1, 2] and all(r["words"] == 3 and r["cuts"] == 1 for r in got)
    assert "greedy search on 1 validation cuts: %WER" in capfd.readouterr().err
    assert train(prepared, tmp_path / "b", "--valid-wer-interval", "0", "--num-epochs", "1") == 0
    assert not [r for r in read_metrics(tmp_path / "b" / "metrics.jsonl") if r["type"] == "wer"]
    assert numbered(tmp_path / "b", "epoch")


def test_greedy_errors_are_the_edit_distance():
    from asr_core.decoding.validation_wer import GreedyErrors
    from asr_core.models import ModelOptions, build_model
    from asr_core.utils.options import defaults_of, from_params

    torch.manual_seed(0)
    model = build_model(
        from_params(
            ModelOptions, {**defaults_of(ModelOptions), **TINY, "use_ctc": True, "use_transducer": False}
        ),
        7,
    ).eval()
    sup = {
        "text": ["a b", "c"],
        "sequence_idx": torch.arange(2),
        "start_frame": torch.zeros(2, dtype=torch.int32),
        "num_frames": torch.tensor([80, 50]),
    }
    measure = GreedyErrors(lambda tokens: "a x", lambda text: text)
    assert measure(model, [{"inputs": torch.randn(2, 80, 80), "supervisions": sup}], 5) == (1 + 2, 3, 2)
    assert measure(model, [{"inputs": torch.randn(2, 80, 80), "supervisions": sup}], 1) == (1, 2, 1)
