"""Adam, AdamW, decay of chosen parameters and clipping against plain formulations."""

import copy
import logging
import math

import pytest
import torch
from torch import nn
from waiting import Waiting

from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.training.optim.adam import build_adam
from asr_core.training.optim.stepper import GradientScaling, Stepper
from asr_core.training.optimizer_options import OptimizerOptions
from asr_core.training.schedule import build_scheduler
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


class Small(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(5, 4, dtype=dtype)
        self.norm = nn.LayerNorm(4, dtype=dtype)
        self.pos_bias_u = nn.Parameter(torch.randn(2, 3, dtype=dtype))

    def set_grads(self, step):
        rng = torch.Generator().manual_seed(step)
        for p in self.parameters():
            p.grad = 10.0 ** (step % 4 - 1) * torch.randn(p.shape, generator=rng, dtype=torch.float64).to(
                p.dtype
            )


DECAYED = ("linear.weight", "pos_bias_u")


def test_clipping_then_l2_then_adam_as_written_down():
    model, utterances = Small(), 7.0
    opts = OptimizerOptions(
        optim="adam", base_lr=0.01, adam_betas="0.9,0.98", adam_eps=1e-9, l2=0.02, clip_grad_norm=1.0
    )
    stepper = Stepper(build_adam(model, opts), NO_SCALER, GradientScaling("utterances", opts.clip_grad_norm))
    w = {name: p.detach().clone() for name, p in model.named_parameters()}
    m, v = ({name: torch.zeros_like(p) for name, p in w.items()} for _ in range(2))
    clipped = 0
    for t in range(1, 21):
        model.set_grads(t)
        g = {name: p.grad / utterances for name, p in model.named_parameters()}
        norm = sum(float((x**2).sum()) for x in g.values()) ** 0.5
        clipped += norm > 1
        for name in w:
            x = g[name] * min(1.0, 1.0 / (norm + 1e-6)) + 0.02 * w[name] * (name in DECAYED)
            m[name] = 0.9 * m[name] + 0.1 * x
            v[name] = 0.98 * v[name] + 0.02 * x**2
            w[name] = w[name] - 0.01 * (m[name] / (1 - 0.9**t)) / ((v[name] / (1 - 0.98**t)).sqrt() + 1e-9)
        assert stepper.step(t, {"utterances": utterances, "frames": 100.0})
        assert stepper.grad_norm == pytest.approx(norm)
    assert 5 <= clipped < 20
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), w[name], rtol=1e-9, atol=1e-12)


def test_adamw_is_torchs():
    model, plain = Small(torch.float32), Small(torch.float32)
    ours = build_adam(model, OptimizerOptions(optim="adamw", base_lr=0.02, weight_decay=0.3))
    named = dict(plain.named_parameters())
    groups = [
        {"params": [named[n] for n in DECAYED]},
        {"params": [p for n, p in named.items() if n not in DECAYED], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.3, foreach=False, fused=False)
    for t in range(10):
        for m, optimizer in ((model, ours), (plain, theirs)):
            m.set_grads(t)
            optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, named[name], rtol=1e-5, atol=1e-6)


SIZES = {
    "conformer": {"num_encoder_layers": 1},
    "zipformer": {"model_size": "tiny"},
    "contextnet": {"alpha": 0.5},
    "lstm": {"num_encoder_layers": 1},
}


@pytest.mark.parametrize("encoder, sizes", SIZES.items())
def test_biases_norms_and_scales_are_exempt(encoder, sizes, caplog):
    caplog.set_level(logging.INFO)
    model = build_model(
        from_params(options_class(encoder), {**sizes, "predictor": "lstm", "predictor_layer_norm": True}), 12
    )
    optimizer = build_adam(model, OptimizerOptions(optim="adam", base_lr=0.1, l2=1e-6))
    decayed = {n for g in optimizer.param_groups if g["weight_decay"] for n in g["names"]}
    named = dict(model.named_parameters())
    assert {n for n, p in named.items() if p.dim() <= 1}.isdisjoint(decayed)
    others = {n.rpartition(".")[2] for n, p in named.items() if p.dim() > 1 and n not in decayed}
    assert others <= {"chunkwise_conv_scale"}
    if encoder == "conformer":  # names that only contain "bias"
        assert (
            "encoder.layers.0.self_attn.pos_bias_u" in decayed
            and "encoder.layers.0.self_attn.per_dim_scale" not in decayed
        )
    assert f"adam: --l2 1e-06 holds for {len(decayed)} of {len(named)} parameters" in caplog.text
    caplog.clear()
    build_adam(model, OptimizerOptions(optim="adam", base_lr=0.1))
    assert "adam: without decay of the weights" in caplog.text


def test_the_state_continues_by_name_and_with_new_options():
    def steps(model, optimizer, first, last):
        for t in range(first, last):
            model.set_grads(t)
            optimizer.step()

    a = Small(torch.float32)
    opts = OptimizerOptions(optim="adam", base_lr=0.01)
    optimizer = build_adam(a, opts)
    steps(a, optimizer, 0, 5)
    saved = copy.deepcopy(optimizer.state_dict())
    b = Small(torch.float32)
    b.load_state_dict(a.state_dict())
    again = build_adam(
        b, OptimizerOptions(optim="adam", base_lr=0.01, no_decay_regex=".*weight")
    )  # other groups, in another order
    build_scheduler(again, OptimizerOptions(optim="adam", base_lr=0.01))
    again.load_state_dict(saved)
    steps(a, optimizer, 5, 9)
    steps(b, again, 5, 9)
    for p, q in zip(a.parameters(), b.parameters()):
        assert torch.equal(p, q)
    changed = build_adam(b, OptimizerOptions(optim="adam", base_lr=0.02, l2=0.5, adam_eps=1e-3))
    changed.load_state_dict(saved)
    group = changed.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.02, 0.5, 1e-3)
    with pytest.raises(ValueError, match="only one of the optimizers has"):
        build_adam(nn.Linear(2, 2), opts).load_state_dict(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_loss_scale_comes_off_before_clipping(dtype):
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16, init_scale=1024.0)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    stepper = Stepper(optimizer, scaler, GradientScaling("frames", 0.5))
    scaler.scale((weight**2).sum() * 5.0).backward()  # gradient (30, 40), per frame (3, 4)
    assert stepper.step(1, {"utterances": 2.0, "frames": 10.0}) and stepper.grad_norm == pytest.approx(5.0)
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0 - 0.3, 4.0 - 0.4]), rtol=1e-5, atol=0)
    before = weight.detach().clone()
    weight.grad = torch.tensor([float("nan"), 1.0])
    scaler.scale(torch.zeros(()))  # a step of the scaler begins
    assert not stepper.step(2, {"utterances": 2.0, "frames": 10.0}) and torch.equal(weight.detach(), before)


def test_an_overflow_of_float16_leaves_weights_and_moments():
    model = Small(torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    optimizer = build_adam(model, OptimizerOptions(optim="adamw", base_lr=0.1))
    stepper = Stepper(optimizer, scaler, GradientScaling("none", 1.0))
    for step, factor in enumerate((1.0, float("inf"), 1.0), 1):
        before = copy.deepcopy((list(model.parameters()), optimizer.state_dict()["state"]))
        model.zero_grad()
        loss = model.norm(model.linear(torch.ones(2, 5))).square().sum() + model.pos_bias_u.sum()
        scaler.scale(loss * factor).backward()
        assert stepper.step(step) == (step != 2) and stepper.overflowed == (step == 2)
        if step == 2:
            assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before[0]))
            for i, state in optimizer.state_dict()["state"].items():
                assert all(torch.equal(value, before[1][i][name]) for name, value in state.items())
        else:
            assert not torch.equal(model.linear.weight, before[0][0])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"base_lr": 0.0}, "--base-lr must be above 0"),
        ({"l2": -1.0}, "--l2 must be at least 0"),
        ({"clip_grad_norm": float("nan")}, "--clip-grad-norm must be at least 0"),
        ({"adam_betas": "0.9"}, "--adam-betas '0.9' must be two numbers"),
        ({"adam_betas": "0.9,1"}, "at least 0 and below 1"),
        ({"no_decay_regex": "(bias"}, "is no regular expression"),
        ({"ema_decay": 1.0}, "--ema-decay must be at least 0 and below 1"),
        ({"valid_with_ema": True}, "needs --ema-decay"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        from_params(OptimizerOptions, changes).validate()


@pytest.mark.parametrize("optim", ["adam", "adamw"])
@pytest.mark.parametrize(
    "rule", [GradientScaling(), GradientScaling("frames"), GradientScaling("frames", 0.3)]
)
def test_steps_that_the_host_does_not_wait_for(optim, rule):
    """As on a GPU: the same weights, a bad step left out, and no question before the end."""
    models, steppers = [Small(torch.float32) for _ in range(2)], []
    for model in models:
        optimizer = build_adam(model, OptimizerOptions(optim=optim, base_lr=0.1))
        steppers.append(Stepper(optimizer, NO_SCALER, rule))
    steppers[1]._asks_nothing = True
    sizes = {"utterances": 2.0, "frames": 10.0}
    for step, factor in enumerate((1.0, 3.0, math.nan, 1.0, math.inf, 0.5), 1):
        for model in models:
            model.set_grads(step)
            model.linear.weight.grad.mul_(factor)
        good = steppers[0].step(step, sizes)
        assert good == math.isfinite(factor)
        with Waiting() as waiting:
            steppers[1].start(sizes)
        assert waiting.calls and not waiting.found
        assert steppers[1].settle(step) == good
        if good:
            assert steppers[1].grad_norm == pytest.approx(steppers[0].grad_norm)
        for p, q in zip(*(model.parameters() for model in models)):
            torch.testing.assert_close(p, q)
        states = [stepper.optimizer.state_dict()["state"] for stepper in steppers]
        for i, state in states[0].items():
            for name, value in state.items():
                torch.testing.assert_close(states[1][i][name], value)
