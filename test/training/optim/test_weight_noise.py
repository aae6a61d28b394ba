"""Variational noise: in training alone, the same for a whole step, taken away before the weights
are changed.
"""

from types import SimpleNamespace

import fake_run
import pytest
import torch
from torch import nn

from asr_core.models.build import build_model
from asr_core.models.options import ModelOptions
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.optim.weight_noise import WeightNoise
from asr_core.utils.options import from_params


def pair():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"decoder": nn.Linear(40, 50), "joiner": nn.Linear(50, 60), "encoder": nn.Linear(3, 3)}
    )


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_it_is_drawn_for_each_step_and_taken_away():
    model = pair()
    clean, x = weights(model), torch.randn(5, 40)
    noise = WeightNoise(model, {"decoder": 0.075, "joiner": 0.5}, start=10, seed=3)
    seen = []
    for step, count in ((7, 9.9), (8, 10.0), (8, 10.0), (9, 11.0)):
        model.zero_grad()
        with noise.on(step, count):
            seen.append(weights(model))
            model["joiner"](model["decoder"](x)).square().sum().backward()
        assert all(torch.equal(p, clean[name]) for name, p in weights(model).items())
        seen[-1]["grad"] = model["joiner"].weight.grad.clone()
    early, one, same, other = seen
    assert all(torch.equal(early[name], clean[name]) for name in clean)
    assert all(torch.equal(one[name], same[name]) for name in one)
    for name, std in (("decoder.weight", 0.075), ("joiner.weight", 0.5)):
        drawn = one[name] - clean[name]
        assert float(drawn.std()) == pytest.approx(std, rel=0.05) and not torch.equal(one[name], other[name])
        assert not torch.equal(one[name[:7].rstrip(".") + ".bias"], clean[name[:7].rstrip(".") + ".bias"])
    assert torch.equal(one["encoder.weight"], clean["encoder.weight"])
    moved = {name: p.clone().requires_grad_() for name, p in one.items() if name != "grad"}
    h = nn.functional.linear(x, moved["decoder.weight"], moved["decoder.bias"])
    nn.functional.linear(h, moved["joiner.weight"], moved["joiner.bias"]).square().sum().backward()
    torch.testing.assert_close(one["grad"], moved["joiner.weight"].grad)


def test_a_mistake_inside_leaves_clean_weights():
    model = pair()
    clean = weights(model)
    with pytest.raises(KeyError), WeightNoise(model, {"joiner": 1.0}, 0, 0).on(1, 1.0):
        raise KeyError
    assert all(torch.equal(p, clean[name]) for name, p in weights(model).items())


@pytest.mark.parametrize(
    "predictor, joiner_noise, found",
    [
        ("lstm", 0.0, {"decoder"}),
        ("lstm", 0.2, {"decoder", "joiner"}),
        ("stateless", 0.2, {"joiner"}),
        ("stateless", 0.0, set()),
    ],
)
def test_options_choose_the_modules(tmp_path, predictor, joiner_noise, found):
    options = dict(
        model_size="tiny",
        predictor=predictor,
        predictor_noise=0.1,
        joiner_noise=joiner_noise,
        predictor_noise_start=5,
    )
    model = build_model(from_params(ModelOptions, options), 9)
    noise = AsrRecipe({**fake_run.make_params(tmp_path), **options}, SimpleNamespace()).weight_noise(model)
    clean = weights(model)
    with noise.on(6, 4.0):
        assert all(torch.equal(p, clean[name]) for name, p in weights(model).items())
    with noise.on(6, 5.0):
        changed = {
            name.split(".")[0] for name, p in weights(model).items() if not torch.equal(p, clean[name])
        }
    assert changed == found
