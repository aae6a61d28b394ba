"""--accum-grad: several batches in one step equal one larger batch, and are resumed as a whole."""

import signal

import fake_run
import pytest
import torch
from fake_run import records

from asr_core.nn.scaling import ScheduledFloat
from asr_core.training.checkpoint import read_whole
from asr_core.training.reporting.writers import read_metrics


class Joined(fake_run.FakeRecipe):
    """A recipe without anything random, in which ``joined`` batches in a row are one."""

    def build_model(self):
        model = super().build_model()
        model.encoder, model.dropout = torch.nn.Linear(8, 16), ScheduledFloat((0.0, 0.0))
        return model

    def build_datamodule(self):
        data = super().build_datamodule()
        joined, batch = self.params.get("joined", 1), data._batch

        def big(seed, index):
            parts = [batch(seed, index * joined + i) for i in range(joined)]
            sups = [p["supervisions"] for p in parts]
            sup = {key: sum((s[key] for s in sups), []) for key in ("text", "cut")}
            sup["num_frames"] = torch.cat([s["num_frames"] for s in sups])
            return {
                "inputs": torch.cat([p["inputs"] for p in parts]),
                "supervisions": sup,
                "batch_idx": index,
            }

        def train_dataloader(cuts, epoch, skip_batches=0, bucket_run=0):
            for index in range(skip_batches, fake_run.BATCHES // joined):
                yield big(epoch, index)

        data.train_dataloader = train_dataloader
        return data


ADAM = dict(optim="adam", base_lr=0.003, adam_eps=1e-4, clip_grad_norm=3.0, ema_decay=0.8)


@pytest.mark.parametrize("accum, more", [(2, {}), (3, {}), (3, ADAM)])
def test_it_equals_one_bigger_batch(tmp_path, monkeypatch, accum, more):
    monkeypatch.setattr(fake_run.random, "random", lambda: 1.0)
    common = dict(recipe=Joined, num_epochs=2, average_period=1, save_every_n=4, **more)
    assert fake_run.run(tmp_path / "parts", accum_grad=accum, **common) == 0
    assert fake_run.run(tmp_path / "joined", joined=accum, max_duration=2.0 * accum, **common) == 0
    parts, joined = (
        [r for r in read_metrics(tmp_path / d / "metrics.jsonl") if r["type"] == "train"]
        for d in ("parts", "joined")
    )
    assert len(parts) == len(joined) == 2 * fake_run.BATCHES // accum
    for a, b in zip(parts, joined):
        assert a["batch"] == accum * b["batch"] and a["frames"] == b["frames"] and a["lr"] == b["lr"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["grad_norm"] == pytest.approx(
            b["grad_norm"], rel=1e-3
        )
    a, b = (read_whole(tmp_path / d / "epoch-2.pt") for d in ("parts", "joined"))
    for key in ("model", "model_ema") if more else ("model",):
        for name in b[key]:
            torch.testing.assert_close(a[key][name], b[key][name], rtol=2e-3, atol=2e-4)


def test_the_last_step_of_an_epoch_may_have_fewer_batches(tmp_path):
    assert fake_run.run(tmp_path, accum_grad=5, num_epochs=2) == 0
    got = [
        (r["epoch"], r["batch"], r["batch_idx_train"])
        for r in read_metrics(tmp_path / "metrics.jsonl")
        if r["type"] == "train"
    ]
    assert got == [(1, 5, 1), (1, 10, 2), (1, 12, 3), (2, 5, 4), (2, 10, 5), (2, 12, 6)]


def test_it_continues_exactly_at_the_steps_boundaries(tmp_path):
    common = dict(accum_grad=5, valid_interval=4)
    assert fake_run.run(tmp_path / "whole", **common) == 0
    assert fake_run.run(tmp_path / "parts", max_steps=2, **common) == 0
    for batch in (14, 19, 35):  # the signal comes in the middle of a step, which is done again
        assert fake_run.run(tmp_path / "parts", die_at=batch, die_signal=int(signal.SIGTERM), **common) == 143
    assert fake_run.run(tmp_path / "parts", **common) == 0
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    a, b = (read_whole(tmp_path / d / "epoch-3.pt") for d in ("parts", "whole"))
    assert all(torch.equal(a["model_avg"][name], b["model_avg"][name]) for name in b["model_avg"])


def test_a_bad_batch_takes_its_step_with_it(tmp_path, caplog):
    assert fake_run.run(tmp_path, accum_grad=4, bad_steps=(6,), num_epochs=1) == 0
    assert "batch 2 is skipped, its loss is not finite (1 so far); cuts: cut-1-5-1" in caplog.text
    got = [r["batch_idx_train"] for r in read_metrics(tmp_path / "metrics.jsonl") if r["type"] == "train"]
    assert got == [1, 3]
