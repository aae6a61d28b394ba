"""--activation-checkpointing: the same gradients, states and random numbers in less memory; and
--compile.
"""

import functools
import random

import fake_run
import pytest
import torch
from tiny_encoders import TINY
from tiny_program import ZipformerRecipe

from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.nn.layers import compile_layers, layers_of
from asr_core.nn.scaling import set_batch_count, training_state
from asr_core.training.layers import change_layers
from asr_core.training.options import ProcessOptions
from asr_core.training.reporting.writers import read_metrics
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

HEADS = {"decoder_dim": 8, "joiner_dim": 8, "use_ctc": True}
DECODER = {
    "use_attention_decoder": True,
    "attention_decoder_dim": 16,
    "attention_decoder_num_layers": 2,
    "attention_decoder_attention_dim": 16,
    "attention_decoder_num_heads": 2,
    "attention_decoder_feedforward_dim": 24,
}
CASES = [*((kind, {}) for kind in TINY), ("zipformer", {"causal": False, **DECODER})]
LAYERS = {"zipformer": 2, "conformer": 2, "contextnet": 3, "lstm": 2, "zipformer1": 4}


def model_of(kind, mode, options):
    torch.manual_seed(0)
    model = build_model(from_params(options_class(kind), {**HEADS, **TINY[kind], **options}), vocab_size=7)
    change_layers(model, ProcessOptions(activation_checkpointing=mode), torch.device("cpu"))
    return model.train()


def step(model, count, dtype=None):
    """The loss and the gradients of a step."""
    set_batch_count(model, count)
    x = torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        losses = model(x, torch.tensor([90, 71]), [[3, 4], [5]])
    loss = sum(loss for loss in losses if loss is not None)
    model.zero_grad()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["layer", "selective"])
@pytest.mark.parametrize("kind, options", CASES)
def test_steps_are_the_same(kind, options, mode):
    plain, other = model_of(kind, "none", options), model_of(kind, mode, options)
    assert len(layers_of(other)) == LAYERS[kind] + (2 if "use_attention_decoder" in options else 0)
    assert list(plain.state_dict()) == list(other.state_dict())
    drawn = []
    for model in (plain, other):
        torch.manual_seed(3)
        random.seed(3)
        steps = [step(model, count) for count in (0.0, 0.0, 2000.0, 30000.0)]
        drawn.append((*steps, torch.rand(3), random.random()))
    for (loss, grads), (other_loss, other_grads) in zip(drawn[0][:4], drawn[1][:4]):
        assert torch.equal(loss, other_loss)
        assert grads.keys() == other_grads.keys()
        for name, grad in grads.items():
            assert torch.equal(grad, other_grads[name]), name
    assert torch.equal(drawn[0][4], drawn[1][4]) and drawn[0][5] == drawn[1][5]
    for name, value in plain.state_dict().items():  # running statistics, counts of batches
        assert torch.equal(value, other.state_dict()[name]), name
    assert training_state(plain) == training_state(other)


@pytest.mark.parametrize("mode", ["layer", "selective"])
def test_autocast(mode):
    torch.set_flush_denormal(True)  # as training does: a balancer's smallest norm must not become 0
    models = [model_of("zipformer", m, {}) for m in ("none", mode)]
    results = []
    for model in models:
        torch.manual_seed(3)
        random.seed(3)
        results.append([step(model, 0.0, torch.bfloat16) for _ in range(2)])
    for (loss, grads), (other_loss, other_grads) in zip(*results):
        torch.testing.assert_close(other_loss, loss, rtol=1e-3, atol=0)
        for name, grad in grads.items():  # products in bfloat16 depend on how threads share them
            torch.testing.assert_close(other_grads[name], grad, rtol=0, atol=0.02 * float(grad.abs().max()))


def kept(model):
    """Bytes of memory that a forward pass leaves allocated."""
    x, lens = torch.randn(2, 90, 80), torch.tensor([90, 90])
    model.encoder(*model.encoder_embed(x, lens))  # makes tables that stay
    random.seed(3)
    with torch.profiler.profile(profile_memory=True) as profile:
        out = model.encoder(*model.encoder_embed(x, lens))
    allocated = sum(event.self_cpu_memory_usage for event in profile.key_averages())
    del out
    return allocated


@pytest.mark.parametrize("kind, options", CASES[:5])
def test_memory(kind, options):
    none, selective, layer = (kept(model_of(kind, m, options)) for m in ("none", "selective", "layer"))
    assert layer < selective < none


def test_a_model_without_layers(tmp_path):
    with pytest.raises(
        UserError, match="--activation-checkpointing layer: a FakeModel has no lists of layers"
    ):
        fake_run.run(tmp_path, activation_checkpointing="layer")


@pytest.mark.slow
def test_a_compiled_training_is_the_same(tmp_path, monkeypatch):
    """Checkpoints, validation and random numbers included; another run goes on from it."""
    by_eager = functools.partial(compile_layers, backend="aot_eager")
    monkeypatch.setattr("asr_core.training.layers.compile_layers", by_eager)
    losses = []
    for name, compiled in (("plain", False), ("compiled", True)):
        torch._dynamo.reset()
        assert fake_run.run(tmp_path / name, recipe=ZipformerRecipe, compile=compiled, num_epochs=1) == 0
        rows = read_metrics(tmp_path / name / "metrics.jsonl")
        losses.append([row["loss"] for row in rows if row["type"] in ("train", "valid")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3) and len(losses[0]) > 10
    assert fake_run.run(tmp_path / "compiled", recipe=ZipformerRecipe, num_epochs=2, start_epoch=2) == 0
