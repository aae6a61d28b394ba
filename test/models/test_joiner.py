"""The joiner's modes and the factorised blank by hand; models with them, and with the full loss, in
training.
"""

import math

import pytest
import torch

from asr_core.decoding.transducer.greedy import greedy_search
from asr_core.export.torchscript import script_model
from asr_core.models import build_model
from asr_core.models.checkpoint import model_from_checkpoint
from asr_core.models.joiner import MODES, Joiner
from asr_core.models.options import options_class
from asr_core.models.transducer_loss import Smoothing, prepare_lattice, pruned_losses
from asr_core.ops.rnnt_loss import rnnt_loss
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of, from_params

VOCAB = 17
OPTIONS = options_class("lstm")
SIZES = {
    "num_encoder_layers": 1,
    "encoder_dim": 16,
    "rnn_hidden_size": 20,
    "dim_feedforward": 24,
    "decoder_dim": 16,
    "joiner_dim": 12,
}
modes = pytest.mark.parametrize("mode", MODES)
kinds = pytest.mark.parametrize("kind", ["classic", "hat"])


def joiner_of(mode="add", kind="classic", bias=0.0, blank_id=0):
    torch.manual_seed(0)
    joiner = Joiner(6, 5, 4, 7, mode=mode, transducer_type=kind, blank_logit_bias=bias, blank_id=blank_id)
    for p in joiner.parameters():
        p.data.normal_()
    return joiner.eval()


def hidden(mode, e, d):
    """One vector (joiner_dim,) of projections given as lists."""
    if mode == "add":
        return [math.tanh(a + b) for a, b in zip(e, d)]
    if mode == "multiply":
        return [math.tanh(a * b) for a, b in zip(e, d)]
    half = len(e) // 2
    gate = [1 / (1 + math.exp(-a - b)) for a, b in zip(e[half:], d[half:])]
    return [g * math.tanh(a) + (1 - g) * math.tanh(b) for g, a, b in zip(gate, e, d)]


def logits_by_hand(joiner, mode, e, d):
    weight, bias = joiner.output_linear.weight.tolist(), joiner.output_linear.bias.tolist()
    h = hidden(mode, e, d)
    z = [sum(w * x for w, x in zip(row, h)) + b for row, b in zip(weight, bias)]
    z[joiner.blank_id] += joiner.blank_logit_bias
    return z


@modes
@kinds
@pytest.mark.parametrize("bias, blank_id", [(0.0, 0), (1.5, 3)])
@torch.no_grad()
def test_by_hand(mode, kind, bias, blank_id):
    joiner = joiner_of(mode, kind, bias, blank_id)
    encoder_out, decoder_out = torch.randn(2, 3, 1, 6), torch.randn(2, 1, 4, 5)
    out = joiner(encoder_out, decoder_out)
    e, d = joiner.encoder_proj(encoder_out), joiner.decoder_proj(decoder_out)
    assert torch.equal(joiner(e, d, project_input=False), out)
    z = logits_by_hand(joiner, mode, e[1, 2, 0].tolist(), d[1, 0, 3].tolist())
    if kind == "hat":
        blank = 1 / (1 + math.exp(-z[blank_id]))
        others = sum(math.exp(v) for k, v in enumerate(z) if k != blank_id)
        z = [
            math.log(blank if k == blank_id else (1 - blank) * math.exp(v) / others) for k, v in enumerate(z)
        ]
        torch.testing.assert_close(out.logsumexp(-1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    assert out[1, 2, 3].tolist() == pytest.approx(z, abs=1e-5)


@modes
@kinds
@torch.no_grad()
def test_internal_language_model(mode, kind):
    joiner = joiner_of(mode, kind, 0.5, 2)
    d = joiner.decoder_proj(torch.randn(3, 5))
    logits = joiner.internal_lm(d)
    nothing = [1.0 if mode == "multiply" else 0.0] * d.size(1)
    z = logits_by_hand(joiner, mode, nothing, d[1].tolist())
    if kind == "hat":
        z[2] = -math.inf
    assert logits[1].tolist() == pytest.approx(z, abs=1e-5)
    assert not torch.allclose(logits[0], logits[1])


@modes
@kinds
@torch.no_grad()
def test_scripted_equals_eager(mode, kind):
    joiner = joiner_of(mode, kind, 0.5)
    scripted = torch.jit.script(joiner)
    encoder_out, decoder_out = torch.randn(4, 6), torch.randn(4, 5)
    d = joiner.decoder_proj(decoder_out)
    for _ in range(3):  # the later calls run optimised
        torch.testing.assert_close(scripted(encoder_out, decoder_out), joiner(encoder_out, decoder_out))
        torch.testing.assert_close(scripted.internal_lm(d), joiner.internal_lm(d))


def test_gradient_of_the_factorised_blank():
    joiner = joiner_of("gated", "hat", 0.5, 3).double()
    inputs = [
        torch.randn(3, 6, dtype=torch.float64, requires_grad=True),
        torch.randn(3, 5, dtype=torch.float64, requires_grad=True),
    ]
    assert torch.autograd.gradcheck(joiner, inputs)


def batch():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(3, 131, 80, generator=generator),
        torch.tensor([131, 117, 90]),
        [[3, 7, 1, 16, 5], [2, 2, 9], [4, 11, 8, 6]],
    )


def total(losses):
    return sum(loss for loss in losses if loss is not None)


def small(**options):
    torch.manual_seed(0)
    return build_model(from_params(OPTIONS, {**SIZES, **options}), VOCAB)


@modes
@kinds
@torch.no_grad()
def test_full_loss_is_that_of_the_joiners_outputs(mode, kind):
    model = small(joiner_mode=mode, transducer_type=kind, blank_logit_bias=0.7, loss="full").eval()
    x, x_lens, y = batch()
    losses = model(x, x_lens, y, reduction="none", delay_penalty=0.02, fast_emit_lambda=0.1)
    encoder_out, lens = model.forward_encoder(x, x_lens)
    early = {"delay_penalty": 0.02, "fast_emit_lambda": 0.0}
    lattice = prepare_lattice(model.decoder, lens, y, device=x.device, **early)
    logits = model.joiner(encoder_out[:, :, None], lattice.decoder_out[:, None])
    torch.testing.assert_close(losses.rnnt_loss, rnnt_loss(logits, lattice.symbols, **lattice.arguments))
    assert losses.simple_loss is None and losses.pruned_loss is None
    assert model(x, x_lens, y).rnnt_loss == pytest.approx(
        float(model(x, x_lens, y, reduction="none").rnnt_loss.sum())
    )


@torch.no_grad()
def test_lower_bounds_of_lengths_choose_the_same_windows():
    model, (x, x_lens, y) = small().eval(), batch()
    encoder_out, lens = model.forward_encoder(x, x_lens)
    early = {"delay_penalty": 0.0, "fast_emit_lambda": 0.0}
    lattice = prepare_lattice(model.decoder, lens, y, device=x.device, **early)
    less = lattice.cpu_boundary - torch.tensor([0, 0, 0, 3])
    projections = (model.simple_am_proj, model.simple_lm_proj)
    losses = [
        pruned_losses(
            model.joiner, projections, encoder_out, given, prune_range=3, smoothing=Smoothing(0.0, 0.2)
        )
        for given in (lattice, lattice._replace(cpu_boundary=less))
    ]
    assert torch.equal(losses[0][1], losses[1][1]) and losses[0][1].isfinite().all()
    assert not torch.equal(
        losses[0][1], pruned_losses(
            model.joiner, projections, encoder_out, lattice, prune_range=2, smoothing=Smoothing(0.0, 0.2)
        )[1],
    )  # fmt: skip


def test_lengths_on_another_device_are_not_asked_for():
    model, (_, _, y) = small().to("meta"), batch()
    lens, least = torch.zeros(3, dtype=torch.int64, device="meta"), torch.tensor([9, 4, 7])
    early = {"delay_penalty": 0.0, "fast_emit_lambda": 0.0}
    lattice = prepare_lattice(model.decoder, lens, y, device=lens.device, least_lens=least, **early)
    assert lattice.cpu_boundary.tolist() == [[0, 0, 5, 9], [0, 0, 3, 4], [0, 0, 4, 7]]
    assert lattice.arguments["boundary"].shape == (3, 4)
    with pytest.raises((NotImplementedError, RuntimeError)):  # which has none that could be asked for
        prepare_lattice(model.decoder, lens, y, device=lens.device, **early)


@pytest.mark.parametrize(
    "options",
    [
        {"joiner_mode": "gated", "transducer_type": "hat", "loss": "full"},
        {"joiner_mode": "multiply", "transducer_type": "hat"},
        {"joiner_mode": "multiply", "loss": "full", "blank_logit_bias": 1.0},
        {"joiner_mode": "gated", "blank_logit_bias": 1.0},
    ],
)
def test_three_steps_of_training(options):
    model = small(**options)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=3e-4)
    found = []
    for _ in range(3):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = total(model.train()(*batch(), delay_penalty=0.01, fast_emit_lambda=0.01))
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.joiner.parameters())
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        with torch.no_grad():
            found.append(float(total(model.eval()(*batch()))))
    assert found[2] < found[1] < found[0]


@kinds
@torch.no_grad()
def test_an_exported_model_finds_the_same(kind):
    model = small(joiner_mode="gated", transducer_type=kind, loss="full", blank_logit_bias=-3.0).eval()
    model.joiner.output_linear.weight.normal_()
    scripted = script_model(model, streaming=False)
    assert not hasattr(scripted, "simple_am_proj")
    x, x_lens, _ = batch()
    encoder_out, lens = model.forward_encoder(x, x_lens)
    expected, found = greedy_search(model, encoder_out, lens), greedy_search(scripted, encoder_out, lens)
    assert [h.tokens for h in found] == [h.tokens for h in expected] and any(h.tokens for h in found)


def test_early_emission_reaches_the_pruned_losses():
    model = small().eval()
    x, x_lens, y = batch()
    plain, penalised = model(x, x_lens, y), model(x, x_lens, y, delay_penalty=0.1)
    assert plain.simple_loss != penalised.simple_loss and plain.pruned_loss != penalised.pruned_loss
    grads = []
    for fast_emit_lambda in (0.0, 0.5):
        model.zero_grad()
        losses = model(x, x_lens, y, fast_emit_lambda=fast_emit_lambda)
        assert losses.simple_loss == plain.simple_loss and losses.pruned_loss == plain.pruned_loss
        total(losses).backward()
        grads.append(
            [model.simple_am_proj.weight.grad.clone(), model.joiner.output_linear.weight.grad.clone()]
        )
    assert not any(torch.allclose(a, b) for a, b in zip(*grads))


def test_a_checkpoint_records_loss_and_joiner():
    options = {
        **SIZES,
        "joiner_mode": "gated",
        "transducer_type": "hat",
        "loss": "full",
        "blank_logit_bias": 0.5,
    }
    model = small(**options)
    content = {
        "model": model.state_dict(),
        **defaults_of(OPTIONS),
        "encoder": "lstm",
        **options,
        "vocab_size": VOCAB,
    }
    again = model_from_checkpoint(content).joiner
    assert (again.mode, again.hat, again.blank_logit_bias) == ("gated", True, 0.5)
    assert not any(name.startswith("simple_") for name in content["model"])
    for name, value in (("loss", "pruned"), ("joiner_mode", "add"), ("transducer_type", "classic")):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} {value} contradicts the checkpoint"):
            model_from_checkpoint(content, {name: value})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"joiner_mode": "divide"}, "'divide'"),
        ({"transducer_type": "dog"}, "'dog'"),
        ({"loss": "half"}, "unknown --loss 'half'"),
        ({"joiner_dim": 0}, "--joiner-dim"),
    ],
)
def test_unknown_kinds_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        small(**options)
