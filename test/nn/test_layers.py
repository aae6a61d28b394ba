"""Compiled layers compute what they do otherwise, for any length in the same graphs."""

import pytest
import torch
from tiny_encoders import model_of
from torch._dynamo.utils import counters

from asr_core.nn.layers import compile_layers
from asr_core.utils.errors import UserError

CPU = torch.device("cpu")
# One for each shape of layer. Two of ContextNet's strides and of its inputs without gradient differ.
GRAPHS = {"conformer": 1, "zipformer": 2, "zipformer1": 3, "contextnet": 4}


def encode(model, num_frames):
    x = torch.randn(2, num_frames, 80, generator=torch.Generator().manual_seed(num_frames))
    return model.encoder(*model.encoder_embed(x, torch.tensor([num_frames, num_frames - 9])))[0]


def compiled(model, training, backend):
    """The model, with counters at 0."""
    torch._dynamo.reset()
    compile_layers(model, CPU, training=training, backend=backend)
    counters.clear()
    return model


@pytest.mark.parametrize("kind", ["conformer", pytest.param("contextnet", marks=pytest.mark.slow)])
def test_training(kind):
    models = model_of(kind).train(), compiled(model_of(kind).train(), True, "aot_eager")
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    for num_frames in (90, 131, 77):
        results = []
        for model in models:
            torch.manual_seed(2)
            model.zero_grad()
            out = encode(model, num_frames)
            out.sum().backward()
            results.append([out, *(p.grad for p in model.encoder.parameters())])
        for a, b in zip(*results):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    for name, value in models[0].state_dict().items():  # running statistics
        torch.testing.assert_close(value, models[1].state_dict()[name], rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] <= GRAPHS[kind] and not counters["graph_break"]


@pytest.mark.parametrize("kind", ["zipformer", pytest.param("zipformer1", marks=pytest.mark.slow)])
def test_decoding(kind):
    plain, other = model_of(kind), compiled(model_of(kind), False, "eager")
    with torch.inference_mode():
        for num_frames in (90, 131, 77):
            torch.testing.assert_close(encode(plain, num_frames), encode(other, num_frames))
    assert counters["stats"]["unique_graphs"] == GRAPHS[kind] and not counters["graph_break"]
    other.train()
    encode(other, 90)  # as it was
    assert counters["stats"]["unique_graphs"] == GRAPHS[kind]


@pytest.mark.parametrize(
    "kind, layer", [("zipformer", "Zipformer2Encoder"), ("zipformer1", "ZipformerEncoder")]
)
def test_training_of_zipformers(kind, layer):
    with pytest.raises(UserError, match=f"a {layer}Layer draws in Python .* leave it out"):
        compile_layers(model_of(kind), CPU, training=True)


def test_nothing_to_compile(monkeypatch):
    with pytest.raises(UserError, match="nothing to compile in a LstmEncoderLayer"):
        compile_layers(model_of("lstm"), CPU, training=False)
    with pytest.raises(UserError, match="nothing to compile in a Linear"):
        compile_layers(torch.nn.Linear(2, 2), CPU, training=True)

    def fail(*args, **kwargs):
        raise RuntimeError("\nno compiler\nwas found")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(UserError, match=r"cannot compile for the cpu here \(no compiler\): leave it out"):
        compile_layers(model_of("conformer"), CPU, training=True)
