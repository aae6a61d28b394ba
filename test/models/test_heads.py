"""The attention decoder and CR-CTC in a model: losses, rescoring, gradients, checkpoints."""

import math
import random

import pytest
import torch

from asr_core.models import ModelOptions, build_model
from asr_core.models.attention_decoder import AttentionDecoder
from asr_core.models.checkpoint import load_averaged_model, model_from_checkpoint
from asr_core.nn.transformer import DecoderConfig
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, record_of

SIZES = dict(
    num_encoder_layers="1,1",
    downsampling_factor="1,2",
    encoder_dim="24,32",
    encoder_unmasked_dim="16",
    feedforward_dim="32",
    num_heads="2",
    query_head_dim="8",
    value_head_dim="6",
    pos_dim=12,
    cnn_module_kernel="7",
    decoder_dim=16,
    joiner_dim=20,
    attention_decoder_dim=16,
    attention_decoder_num_layers=2,
    attention_decoder_attention_dim=24,
    attention_decoder_num_heads=3,
    attention_decoder_feedforward_dim=28,
)
HEADS = dict(use_ctc=True, use_attention_decoder=True)
VOCAB = 13


def model_of(**options):
    torch.manual_seed(0)
    random.seed(0)
    return build_model(from_params(ModelOptions, {**SIZES, **HEADS, **options}), vocab_size=VOCAB)


def batch():
    x = torch.randn(3, 131, 80, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([131, 117, 90]), [[3, 7, 12, 5], [2, 2, 9], [4]]


def attention_decoder(**options):
    torch.manual_seed(0)
    config = DecoderConfig(
        embed_dim=8, num_layers=1, attention_dim=8, num_heads=2, feedforward_dim=12, memory_dim=6
    )
    return AttentionDecoder(VOCAB, config, **options).double().eval()


@torch.no_grad()
def test_loss_and_nll_by_hand():
    head = attention_decoder(label_smoothing=0.1)
    memory, lens, sentences = (
        torch.randn(3, 5, 6, dtype=torch.float64),
        torch.tensor([5, 3, 1]),
        [[3, 7], [], [4, 4, 4]],
    )
    loss, nll = head(memory, lens, sentences), head.nll(memory, lens, sentences)
    assert loss.shape == (3,) and nll.shape == (3, 4)
    for i, sentence in enumerate(sentences):
        log_probs = head.decoder(
            torch.tensor([[1, *sentence]]), memory[i : i + 1, : lens[i]], lens[i : i + 1]
        )[0].log_softmax(-1)
        targets = [*sentence, 1]
        expected = [-float(log_probs[u, token]) for u, token in enumerate(targets)]
        torch.testing.assert_close(
            nll[i].double(), torch.tensor(expected + [0.0] * (4 - len(targets)), dtype=torch.float64)
        )
        smooth = sum(0.9 * n + 0.1 * -float(log_probs[u].mean()) for u, n in enumerate(expected))
        assert math.isclose(float(loss[i]), smooth, rel_tol=1e-5)


def test_losses_of_all_heads_and_no_influence_of_padding():
    model = model_of(intermediate_ctc_stacks="1,2").eval()
    x, x_lens, y = batch()
    with torch.no_grad():
        each, total = model(x, x_lens, y, reduction="none"), model(x, x_lens, y)
        alone = model(x[:1], x_lens[:1], y[:1])
    for name, loss in total._asdict().items():
        if name in ("cr_loss", "rnnt_loss"):
            assert loss is None
            continue
        assert getattr(each, name).shape == (3,) and loss.isfinite()
        torch.testing.assert_close(getattr(each, name).sum(), loss)
        torch.testing.assert_close(getattr(each, name)[0], getattr(alone, name), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("use_transducer", [False, True])
def test_two_equal_views_cost_what_one_does(use_transducer):
    model = model_of(use_transducer=use_transducer).eval()
    x, x_lens, y = batch()
    with torch.no_grad():
        one = model(x, x_lens, y, reduction="none")
        two = model(torch.cat([x, x]), torch.cat([x_lens, x_lens]), y + y, reduction="none", use_cr_ctc=True)
        other = model(torch.cat([x, 0.5 * x]), torch.cat([x_lens, x_lens]), y + y, use_cr_ctc=True)
        halves = [model(v, x_lens, y) for v in (x, 0.5 * x)]
    assert two.cr_loss.abs().max() < 1e-4 < float(other.cr_loss)
    for name, loss in one._asdict().items():
        if loss is not None:
            torch.testing.assert_close(getattr(two, name), loss, atol=1e-4, rtol=1e-4)
            mean = 0.5 * sum(getattr(h, name) for h in halves)
            torch.testing.assert_close(getattr(other, name), mean, atol=1e-3, rtol=1e-4)


def test_views_must_be_pairs():
    model = model_of()
    x, x_lens, y = batch()
    with pytest.raises(ValueError, match="two views of each utterance, got 3"):
        model(x, x_lens, y, use_cr_ctc=True)
    with pytest.raises(ValueError, match="needs a CTC head"):
        model_of(use_ctc=False)(x[:2], x_lens[:2], y[:2], use_cr_ctc=True)


@pytest.mark.parametrize(
    "options", [dict(use_transducer=False), dict(), dict(use_transducer=False, use_attention_decoder=False)]
)
def test_training_reaches_every_parameter(options):
    model = model_of(**options).train()
    x, x_lens, y = batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    views = torch.cat([x, x + 0.1 * torch.randn_like(x)])
    values, reached = [], set()
    for _ in range(6):
        losses = model(views, torch.cat([x_lens, x_lens]), y + y, use_cr_ctc=True)
        loss = sum(part for part in losses if part is not None)
        optimizer.zero_grad()
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert all(g.isfinite().all() for g in grads.values())
        reached |= {n for n, g in grads.items() if g.abs().max() > 0}
        optimizer.step()
        values.append(loss.item())
    assert all(math.isfinite(v) for v in values) and min(values[3:]) < values[0]
    missed = {n for n, _ in model.named_parameters()} - reached
    assert all(n.endswith("layers.0.bypass_scale") for n in missed), missed


def test_autocast():
    model = model_of(intermediate_ctc_stacks="2").train()
    x, x_lens, y = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(torch.cat([x, x]), torch.cat([x_lens, x_lens]), y + y, use_cr_ctc=True)
    found = [loss for loss in losses if loss is not None]
    assert len(found) == 6 and all(loss.dtype == torch.float32 and loss.isfinite() for loss in found)


def content(model, **options):
    options = {**SIZES, **HEADS, **options}
    return {
        "model": model.state_dict(),
        **record_of(from_params(ModelOptions, options)),
        "vocab_size": VOCAB,
        "feature_dim": 80,
    }


def test_checkpoint_describes_its_heads(tmp_path):
    model = model_of(use_transducer=False, use_cr_ctc=True)
    torch.save(content(model, use_transducer=False, use_cr_ctc=True), tmp_path / "epoch-1.pt")
    loaded, params = load_averaged_model(
        tmp_path,
        epoch=1,
        iter=0,
        avg=1,
        use_averaged_model=False,
        overrides={"use_cr_ctc": False, "use_ctc": True},
    )
    assert loaded.use_attention_decoder and loaded.use_ctc and not loaded.use_transducer
    assert params.attention_decoder_dim == 16
    x, x_lens, y = batch()
    for a, b in zip(model.eval()(x, x_lens, y), loaded.eval()(x, x_lens, y)):
        assert (a is None and b is None) or torch.equal(a, b)
    with pytest.raises(UserError, match="--attention-decoder-dim 24 contradicts"):
        load_averaged_model(
            tmp_path,
            epoch=1,
            iter=0,
            avg=1,
            use_averaged_model=False,
            overrides={"attention_decoder_dim": 24},
        )


def test_weights_alone_are_described_by_options():
    model = model_of(use_transducer=False)
    again = model_from_checkpoint({"model": model.state_dict()}, {**SIZES, **HEADS, "use_transducer": False})
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_checkpoints_older_than_these_heads_still_load():
    model = model_of(use_attention_decoder=False)
    ckpt = content(model, use_attention_decoder=False)
    new = {
        "use_attention_decoder",
        "use_cr_ctc",
        "intermediate_ctc_stacks",
        *(name for name in ckpt if name.startswith("attention_decoder")),
    }
    old = {name: value for name, value in ckpt.items() if name not in new}
    assert len(ckpt) - len(old) == 8
    assert not model_from_checkpoint(old).use_attention_decoder
    with pytest.raises(UserError, match="--use-attention-decoder True contradicts"):
        model_from_checkpoint(old, {"use_attention_decoder": True})


def test_intermediate_ctc():
    plain = model_of().eval()
    model = model_of(intermediate_ctc_stacks="1,2").eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    x, x_lens, y = batch()
    with torch.no_grad():
        losses, expected = model(x, x_lens, y, reduction="none"), plain(x, x_lens, y, reduction="none")
        frames, frame_lens = model.encoder_embed(x, x_lens)
        _, lens, stacks = model.encoder.forward_stacks(frames, frame_lens)
        each = []
        for stack, downsample, output in zip(
            stacks, model.intermediate_ctc.downsample, model.intermediate_ctc.output
        ):
            log_probs = output(downsample(stack)).transpose(0, 1)
            for i, labels in enumerate(y):
                alone = log_probs[i, : lens[i]].unsqueeze(1)
                each.append(
                    torch.nn.functional.ctc_loss(
                        alone,
                        torch.tensor([labels]),
                        lens[i : i + 1],
                        torch.tensor([len(labels)]),
                        reduction="sum",
                    )
                )
    torch.testing.assert_close(
        losses.intermediate_ctc_loss, torch.stack(each).view(2, 3).mean(0), atol=1e-3, rtol=1e-4
    )
    assert expected.intermediate_ctc_loss is None
    torch.testing.assert_close(losses.ctc_loss, expected.ctc_loss)
    model.train()(x, x_lens, y).intermediate_ctc_loss.backward()
    grads = [p.grad for p in model.intermediate_ctc.parameters()]
    assert all(g is not None and g.isfinite().all() and g.abs().max() > 0 for g in grads)
    assert all(p.grad is None for p in model.attention_decoder.parameters())
    again = model_from_checkpoint(content(model, intermediate_ctc_stacks="1,2"))
    assert again.intermediate_ctc.stacks == (1, 2)
