"""Weights that are not finite: never saved as a checkpoint, and named where one is loaded."""

import fake_run
import pytest
import torch

from asr_core.models.averaging import first_not_finite
from asr_core.models.checkpoint import load_averaged_model, load_state
from asr_core.training.resume import find_start
from asr_core.utils.errors import UserError


def spoiling(step):
    """Return a recipe whose weights become infinite before the loss of ``step``, once."""

    class Spoilt(fake_run.FakeRecipe):
        def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
            if model.training and batch_idx_train == step:
                model.out.weight.data[0, 0] = float("inf")
            return super().compute_loss(model, batch, batch_idx_train, reduction)

    return Spoilt


@pytest.mark.parametrize(
    "step, regular", [(9, "checkpoint-10.pt"), (12, "epoch-1.pt"), (2, "checkpoint-5.pt")]
)
def test_they_are_not_saved_under_the_name_of_a_checkpoint(tmp_path, step, regular):
    with pytest.raises(UserError) as raised:
        fake_run.run(tmp_path, recipe=spoiling(step), max_bad_batches=100)
    line = str(raised.value)
    assert "the weights are not finite (model: out.weight) at batch" in line and "bad-model-0.pt" in line
    assert "--base-lr" in line
    assert (tmp_path / "bad-model-0.pt").is_file() and not (tmp_path / regular).exists()
    for path in tmp_path.glob("*-[0-9]*.pt"):
        if path.name != "bad-model-0.pt":
            assert not first_not_finite(torch.load(path)["model"]), path
    assert fake_run.run(tmp_path) == 0  # the same command goes on from what is whole
    assert torch.load(tmp_path / "epoch-3.pt")["batch_idx_train"] == 36


def test_recovery_goes_back_before_it_saves(tmp_path):
    assert fake_run.run(tmp_path, recipe=spoiling(14), max_bad_batches=100, auto_recover=True) == 0
    content = torch.load(tmp_path / "checkpoint-15.pt")
    assert not first_not_finite(content["model"]) and not first_not_finite(content["model_avg"])
    assert content["train_state"]["recoveries"] == 1
    assert not first_not_finite(torch.load(tmp_path / "epoch-3.pt")["model_avg"])


def test_what_an_earlier_version_saved_is_not_continued(tmp_path, caplog):
    assert fake_run.run(tmp_path, max_steps=22) == 0
    content = torch.load(tmp_path / "checkpoint-22.pt")
    content["model"]["out.bias"][0] = float("nan")
    torch.save(content, tmp_path / "checkpoint-22.pt")
    assert find_start(tmp_path)[0].name == "checkpoint-20.pt"
    assert (
        "checkpoint-22.pt cannot be continued from, since its model is not finite (out.bias)" in caplog.text
    )


def test_loading_names_the_weight_and_another_checkpoint(tmp_path):
    good = {"model": {"w": torch.ones(3)}, "average_period": 1}
    bad = {"w": torch.tensor([1.0, float("nan"), 1.0])}
    for epoch, model in ((1, good["model"]), (2, good["model"]), (3, bad)):
        content = {**good, "model": model, "model_avg": model, "batch_idx_train": 10 * epoch, "vocab_size": 3}
        torch.save(content, tmp_path / f"epoch-{epoch}.pt")
    module = torch.nn.Module()
    module.w = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(UserError, match=r"the weights are not finite \(w\)"):
        load_state(module, bad)
    assert float(module.w.detach().sum()) == 0.0
    load_state(module, {"w": torch.ones(3)})


def test_decoding_says_which_checkpoint_to_use(tmp_path, monkeypatch):
    from asr_core.models import checkpoint

    def stand_in(content, overrides):
        module = torch.nn.Module()
        module.w = torch.nn.Parameter(torch.zeros(3))
        load_state(module, content["model"])
        module.vocab_size = 3
        return module

    monkeypatch.setattr(checkpoint, "model_from_checkpoint", stand_in)
    for epoch in (1, 2, 3, 4):
        w = {"w": torch.ones(3) if epoch != 3 else torch.full((3,), float("inf"))}
        content = {"model": w, "model_avg": w, "batch_idx_train": 10 * epoch, "average_period": 1}
        torch.save(content, tmp_path / f"epoch-{epoch}.pt")
    options = dict(iter=0, use_averaged_model=False)
    for epoch, avg, averaged in ((3, 1, False), (4, 2, False), (3, 1, True), (4, 1, True)):
        options = dict(iter=0, use_averaged_model=averaged)
        with pytest.raises(UserError) as raised:
            load_averaged_model(tmp_path, epoch=epoch, avg=avg, **options)
        why = f"{tmp_path / 'epoch-3.pt'}: the weights are not finite (w): use --epoch "
        assert str(raised.value).startswith(why)
    load_averaged_model(tmp_path, epoch=2, avg=1, **options)
