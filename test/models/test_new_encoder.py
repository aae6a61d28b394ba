"""The encoder that docs/encoders.md adds as an example, added."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from asr_core.encoders import registry
from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.errors import UserError

DOCS = Path(__file__).parents[2] / "docs" / "encoders.md"


@pytest.fixture
def perceptron(monkeypatch):
    options, modules, entry = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    for name, code in (("perceptron_options", options), ("perceptron", modules)):
        module = types.ModuleType(f"asr_core.encoders.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(code, module.__dict__)
    perceptron_options = sys.modules["asr_core.encoders.perceptron_options"]
    names = {
        "EncoderSpec": registry.EncoderSpec,
        "PerceptronOptions": perceptron_options.PerceptronOptions,
    }
    for name, spec in eval(f"{{{entry}}}", names).items():
        monkeypatch.setitem(registry.ENCODERS, name, spec)
    yield options_class("perceptron")
    options_class.cache_clear()


def test_the_documented_example_works(perceptron):
    model = build_model(
        perceptron(encoder_dim=8, num_encoder_layers=2, decoder_dim=8, joiner_dim=8), vocab_size=5
    )
    x, lens = torch.randn(2, 50, 80), torch.tensor([50, 33])
    losses = model(x, lens, [[1, 2], [3]])
    losses.pruned_loss.backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert registry.subsampling_factor(perceptron()) == model.geometry.subsampling_factor == 4
    with pytest.raises(UserError, match="does not stream"):
        build_model(perceptron(causal=True), vocab_size=5)


def test_what_is_left_out_is_refused_in_words(perceptron):
    model = build_model(perceptron(encoder_dim=8), vocab_size=5)
    with pytest.raises(UserError, match="not causal"):
        model.encoder._check_streaming()
    with pytest.raises(UserError, match="no inner outputs"):
        build_model(perceptron(encoder_dim=8, use_ctc=True, intermediate_ctc_stacks=(1,)), vocab_size=5)
