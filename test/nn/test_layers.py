"""Compiled layers compute what they do otherwise, for any length in the same graphs."""

import random

import pytest
import torch
from tiny_encoders import model_of
from torch._dynamo.utils import counters

from asr_core.nn.layers import compile_layers
from asr_core.nn.scaling import set_batch_count, training_state
from asr_core.utils.errors import UserError

CPU = torch.device("cpu")
# One for each shape of layer. Two of ContextNet's strides and of its inputs without gradient differ.
GRAPHS = {"conformer": 1, "zipformer": 2, "zipformer1": 3, "contextnet": 4}


def encode(model, num_frames, num_utterances=2):
    generator = torch.Generator().manual_seed(num_frames)
    x = torch.randn(num_utterances, num_frames, 80, generator=generator)
    lens = torch.tensor([num_frames - 9 * i for i in range(num_utterances)])
    return model.encoder(*model.encoder_embed(x, lens))[0]


def compiled(model, training, backend):
    """The model, with counters at 0."""
    torch._dynamo.reset()
    compile_layers(model, CPU, training=training, backend=backend)
    counters.clear()
    return model


def step(model, seed, *sizes):
    """The output and the gradients of a loss that all parameters change, behind a norm, too."""
    torch.manual_seed(seed)
    random.seed(seed)
    model.zero_grad()
    set_batch_count(model, 100.0 * seed)
    out = encode(model, *sizes)
    (out * torch.linspace(-1.0, 1.5, out.numel()).view_as(out).sin()).sum().backward()
    grads = {name: p.grad for name, p in model.encoder.named_parameters()}
    return {"out": out.detach(), "next": torch.tensor(random.random()), **grads}


def check_steps(models, tolerance, sizes):
    for seed, size in enumerate(sizes):
        plain, other = (step(model, seed, *size) for model in models)
        assert plain.keys() == other.keys()
        for name, wanted in plain.items():
            wanted, got = (torch.zeros(()) if x is None else x for x in (wanted, other[name]))
            error = (got - wanted).abs().max()
            # a bias before a batch norm has a gradient of rounding errors alone
            assert error <= tolerance * wanted.abs().max() + 1e-5, (size, name, error, wanted.abs().max())


@pytest.mark.parametrize(
    "kind", ["conformer", "zipformer", pytest.param("contextnet", marks=pytest.mark.slow)]
)
def test_training(kind):
    """Random draws, those of Python too, are the same ones."""
    models = model_of(kind).train(), compiled(model_of(kind).train(), True, "aot_eager")
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    check_steps(models, 1e-4, [(90,), (131,), (77,), (203,)])
    for name, value in models[0].state_dict().items():  # running statistics
        torch.testing.assert_close(value, models[1].state_dict()[name], rtol=1e-4, atol=1e-5)
    assert training_state(models[0]) == training_state(models[1])  # what whitening found
    assert counters["stats"]["unique_graphs"] <= GRAPHS[kind] and not counters["graph_break"]


@pytest.mark.slow  # the compiler takes a minute
@pytest.mark.parametrize("kind", ["conformer", "zipformer"])
def test_training_by_inductor(kind):
    models = []
    for _ in range(2):
        model = model_of(kind).train()
        for module in model.modules():
            if type(module) is torch.nn.Dropout:  # whose numbers the compiler draws otherwise
                module.p = 0.0
        models.append(model)
    compiled(models[1], True, "inductor")
    check_steps(models, 1e-3, [(90,), (131,), (77,), (203,), (64,), (99,), (100,)])
    assert counters["stats"]["unique_graphs"] <= GRAPHS[kind] and not counters["graph_break"]


def test_one_graph_for_sizes_that_were_equal():
    """Eight utterances, as many as the width of the positions; then five, and sixteen, as the
    layer's width.
    """
    model = compiled(model_of("zipformer").train(), True, "eager")
    for num_frames, num_utterances in ((150, 8), (101, 5), (204, 16), (77, 3)):
        encode(model, num_frames, num_utterances).sum().backward()
    assert counters["stats"]["unique_graphs"] == GRAPHS["zipformer"]


@pytest.mark.slow
def test_graphs_of_a_training_with_chunks():
    model = compiled(model_of("zipformer").train(), True, "eager")
    model.encoder.chunk_size, model.encoder.left_context_frames = (16, 32, 64, -1), (32, 64, -1)
    rng = random.Random(1)
    for _ in range(100):
        encode(model, rng.randint(160, 500), rng.choice((2, 3, 4, 5, 8, 16))).sum().backward()
    # with chunks; without; and where some utterance is shorter than the batch
    assert counters["stats"]["unique_graphs"] <= 3 * GRAPHS["zipformer"]


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


def test_training_of_the_first_zipformer():
    with pytest.raises(UserError, match="a ZipformerEncoderLayer draws in Python .* leave it out"):
        compile_layers(model_of("zipformer1"), CPU, training=True)


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
