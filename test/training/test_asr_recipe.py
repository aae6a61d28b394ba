"""The extension point: what a subclass of the recipe overrides is what the program trains."""

import pytest
import torch
from fake_run import records
from tiny_program import train

from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.checkpoint import read_whole
from asr_core.training.recipe import Recipe

FACTOR = 0.5


class Scaled(AsrRecipe):
    """A loss times ``--factor``, and a model with one more parameter."""

    @classmethod
    def add_arguments(cls, parser):
        parser.add_argument("--factor", type=float, default=1.0, help="factor on the loss")

    def build_model(self):
        model = super().build_model()
        model.marker = torch.nn.Parameter(torch.zeros(3))
        return model

    def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
        out = super().compute_loss(model, batch, batch_idx_train, reduction)
        factor = self.params["factor"]
        return out._replace(
            loss=out.loss * factor, parts={**out.parts, "factor": out.loss.detach() * 0 + factor}
        )

    def build_optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=1e-6)


def losses(exp_dir):
    return [record for record in records(exp_dir) if record["type"] == "train"]


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """Folders of a plain run and of one with the subclass, of two steps each."""
    folders = [tmp_path_factory.mktemp(name) for name in ("plain", "scaled")]
    assert train(prepared, folders[0], "--max-steps", "2") == 0
    argv = ["--max-steps", "2", "--factor", str(FACTOR)]
    assert train(prepared, folders[1], *argv, recipe=Scaled) == 0
    return folders


def test_features_on_the_device_are_trained_on_as_those_of_the_loader(prepared, runs, tmp_path):
    more = ("--features-on-device", "1", "--valid-interval", "2")
    assert train(prepared, tmp_path, "--max-steps", "2", *more) == 0
    for usual, found in zip(losses(runs[0]), losses(tmp_path)):
        assert found["loss"] == pytest.approx(usual["loss"], rel=1e-3) and found["frames"] == usual["frames"]
    assert any(record["type"] == "valid" for record in records(tmp_path))


def test_the_loss_of_the_subclass_is_minimised(runs):
    plain, scaled = (losses(folder)[0] for folder in runs)  # of the same initial weights
    assert scaled["loss"] == pytest.approx(FACTOR * plain["loss"], rel=1e-6)
    assert scaled["simple_loss"] == pytest.approx(plain["simple_loss"], rel=1e-6)
    assert scaled["factor"] == pytest.approx(FACTOR / scaled["frames"], rel=1e-6)


def test_its_model_options_and_optimizer_are_in_the_checkpoint(runs):
    plain, scaled = (read_whole(folder / "checkpoint-2.pt") for folder in runs)
    assert set(scaled["model"]) - set(plain["model"]) == {"marker"}
    assert scaled["factor"] == FACTOR and "factor" not in plain
    assert "momentum" in scaled["optimizer"]["param_groups"][0]


def test_its_options_are_in_the_help(prepared, tmp_path, capsys):
    assert train(prepared, tmp_path, "--help", recipe=Scaled) == 0
    assert "factor on the loss (default: 1.0)" in capsys.readouterr().out
    assert train(prepared, tmp_path, "--help") == 0
    assert "--factor" not in capsys.readouterr().out


def test_the_former_name_is_the_same_class():
    assert Recipe is AsrRecipe
