"""A model in training: every parameter learns, padding and evaluation mode behave."""

import random

import pytest
import torch

from asr_core.models import ModelOptions, build_model
from asr_core.nn.scaling import set_batch_count
from asr_core.utils.options import from_params

SIZES = dict(
    num_encoder_layers="1,1,1",
    downsampling_factor="1,2,4",
    encoder_dim="32,48,40",
    encoder_unmasked_dim="24",
    feedforward_dim="48",
    num_heads="2",
    query_head_dim="8",
    value_head_dim="6",
    pos_dim=12,
    cnn_module_kernel="7",
    decoder_dim=24,
    joiner_dim=28,
)


def small_model(**options):
    torch.manual_seed(0)
    random.seed(0)
    return build_model(from_params(ModelOptions, {**SIZES, "use_ctc": True, **options}), vocab_size=17)


def batch():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(3, 131, 80, generator=generator),
        torch.tensor([131, 117, 90]),
        [[3, 7, 1, 16, 5], [2, 2, 9], [4, 11, 8, 6]],
    )


def total(losses):
    return sum(loss.sum() for loss in losses if loss is not None)


def test_every_used_parameter_gets_a_finite_gradient():
    model = small_model(causal=True).train()
    for count in (0.0, 3000.0, 30000.0):
        set_batch_count(model, count)
        for _ in range(3):
            total(model(*batch())).backward()
    for name, p in model.named_parameters():
        if name.endswith("layers.0.bypass_scale"):
            assert p.grad is None
        else:
            assert p.grad is not None and p.grad.isfinite().all(), name


def test_evaluation_gradients_are_deterministic_and_finite_for_large_activations():
    model = small_model().eval()
    x, x_lens, y = batch()
    grads = []
    for _ in range(2):
        model.zero_grad()
        total(model(100.0 * x, x_lens, y)).backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    for name, grad in grads[0].items():
        assert grad.isfinite().all(), name
        assert torch.equal(grad, grads[1][name]), name


def test_autocast():
    model = small_model(causal=True).train()
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = model(*batch())
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses if loss is not None)
        total(losses).backward()
    assert all(
        p.grad is None or (p.grad.dtype == torch.float32 and p.grad.isfinite().all())
        for p in model.parameters()
    )
    model.eval()
    with torch.no_grad():
        exact = total(model(*batch()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = total(model(*batch()))
    assert abs(exact - rounded) < 0.03 * exact


def test_padding_does_not_change_valid_frames():
    silence = -23.0
    for causal in (False, True):
        model = small_model(causal=causal, chunk_size="16", left_context_frames="64").eval()
        x, x_lens, _ = batch()
        frame = torch.arange(131)[None, :, None] - x_lens[:, None, None]
        x = torch.where(frame < 0, x, silence)
        noisy = torch.where(
            frame < 24, x, torch.randn_like(x)
        )  # beyond the reach of the front end and of the frames it fills
        wide = torch.cat([x, torch.full((3, 40, 80), silence)], dim=1)
        with torch.no_grad():
            (out, lens), (wide_out, wide_lens), (noisy_out, _) = (
                model.forward_encoder(v, x_lens) for v in (x, wide, noisy)
            )
        assert torch.equal(lens, wide_lens)
        assert not torch.equal(noisy, x)
        for i in (
            1,
            2,
        ):  # the longest utterance ends with the batch, so that zeros, not silence, follow it in convolutions
            torch.testing.assert_close(out[i, : lens[i]], wide_out[i, : lens[i]], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out[i, : lens[i]], noisy_out[i, : lens[i]], atol=1e-5, rtol=1e-5)


HEADS = {
    "pruned": {"use_ctc": False},
    "full": {"loss": "full", "use_ctc": False},
    "hybrid autoregressive": {"loss": "full", "transducer_type": "hat", "use_ctc": False},
    "LSTM predictor": {"predictor": "lstm"},
    "CTC": {"use_transducer": False},
    "CR-CTC": {"use_transducer": False, "use_cr_ctc": True},
    "intermediate CTC": {"intermediate_ctc_stacks": "1"},
    "attention decoder": {
        "use_attention_decoder": True,
        "attention_decoder_dim": 16,
        "attention_decoder_num_layers": 1,
        "attention_decoder_attention_dim": 16,
        "attention_decoder_num_heads": 2,
        "attention_decoder_feedforward_dim": 24,
    },
}


@pytest.mark.parametrize("early", [{}, {"delay_penalty": 0.1, "fast_emit_lambda": 0.01}])
@pytest.mark.parametrize("head", HEADS)
def test_utterances_without_words(head, early):
    """The losses are finite and those of blanks alone, also where no utterance of a batch has words."""
    model = small_model(**HEADS[head]).eval()
    x, x_lens, y = batch()
    args = dict(reduction="none", **early)
    if HEADS[head].get("use_cr_ctc"):
        x, x_lens, args["use_cr_ctc"] = x.repeat(2, 1, 1), x_lens.repeat(2), True
    repeats = len(x) // 3
    mixed, empty = (model(x, x_lens, some * repeats, **args) for some in ([y[0], [], y[2]], [[], [], []]))
    for name, of_all, alone in zip(mixed._fields, mixed, empty):
        if of_all is not None:
            assert of_all.isfinite().all() and torch.allclose(of_all[1], alone[1], rtol=1e-4), name
            assert name == "cr_loss" or not torch.allclose(of_all[0], alone[0], rtol=1e-4), name
    total(empty).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    if empty.ctc_loss is not None and head == "CTC":
        encoder_out, lens = model.encoder(*model.encoder_embed(x, x_lens))
        blanks = model.ctc_output(encoder_out)[..., 0]
        assert torch.allclose(empty.ctc_loss[2], -blanks[2, : lens[2]].sum(), rtol=1e-4)


def test_losses_in_double_precision():
    for options in ({}, {"loss": "full"}):
        model = small_model(**options).eval()
        x, x_lens, y = batch()
        single = model(x, x_lens, y)
        double = model.double()(x.double(), x_lens, y)
        for one, other in zip(single, double):
            if one is not None and one.requires_grad:
                torch.testing.assert_close(other.float(), one, rtol=1e-3, atol=1e-2)
        transducer = [loss for loss in (double.pruned_loss, double.rnnt_loss) if loss is not None]
        assert [loss.dtype for loss in transducer] == [torch.float64]
        transducer[0].backward()
        assert all(p.grad.isfinite().all() for p in model.joiner.parameters() if p.grad is not None)
