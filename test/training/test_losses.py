"""Losses of all heads: their weights, what goes together, and training with each combination."""

import math
from types import SimpleNamespace

import fake_run
import pytest
import torch

from asr_core.data.options import DataOptions
from asr_core.models import ModelOptions, build_model
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.training.checkpoint import read_whole
from asr_core.training.loss_options import LossOptions
from asr_core.training.losses import check_heads, early_emission, loss_weights, transducer_loss_scales
from asr_core.training.reporting.writers import read_metrics
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of, from_params

SIZES = {
    "num_encoder_layers": "1,1",
    "downsampling_factor": "1,2",
    "encoder_dim": "24,32",
    "encoder_unmasked_dim": "16",
    "feedforward_dim": "32",
    "num_heads": "2",
    "query_head_dim": "8",
    "cnn_module_kernel": "7",
    "decoder_dim": 16,
    "joiner_dim": 16,
    "attention_decoder_dim": 16,
    "attention_decoder_num_layers": 1,
    "attention_decoder_attention_dim": 16,
    "attention_decoder_num_heads": 2,
    "attention_decoder_feedforward_dim": 24,
}
CTC = {"use_ctc": True, "use_transducer": False}
AED = {"use_attention_decoder": True, "ctc_loss_scale": 0.1, "attention_decoder_loss_scale": 0.9}
CR = {"use_cr_ctc": True, "enable_spec_aug": False, "spec_aug_time_warp_factor": 20}


class HeadsRecipe(fake_run.FakeRecipe):
    """A tiny Zipformer with the heads that the options ask for, on made-up features."""

    tokenizer = SimpleNamespace(
        encode=lambda texts: [[int(t), 2, 3] for t in texts],
        pieces=["<blk>", "<sos/eos>"],
        vocab_size=fake_run.VOCAB,
    )
    build_model = AsrRecipe.build_model

    def build_datamodule(self):
        data = super().build_datamodule()
        small = data._batch

        def batch(seed, index):
            out = small(seed, index)
            out["inputs"] = out["inputs"].repeat(1, 6, 10)
            out["supervisions"]["num_frames"] *= 6
            out["supervisions"]["start_frame"] = torch.zeros(3, dtype=torch.int32)
            return out

        data._batch = batch
        return data


def params_of(tmp_path, **options):
    return fake_run.make_params(tmp_path, **{**SIZES, "num_mel_bins": 80, **options})


def run(exp_dir, **options):
    options = {**SIZES, "num_mel_bins": 80, "num_epochs": 1, "save_every_n": 4, "base_lr": 0.03, **options}
    return fake_run.run(exp_dir, recipe=HeadsRecipe, **options)


def weights(batch_idx_train, *heads, **options):
    return loss_weights(LossOptions(warm_step=100, **options), batch_idx_train, heads)


def test_weights_of_losses():
    both = ("simple_loss", "pruned_loss", "ctc_loss")
    assert weights(50, *both)["ctc_loss"] == 0.2
    assert weights(50, "ctc_loss", "cr_loss")["ctc_loss"] == 1.0
    assert weights(50, "ctc_loss", "attention_decoder_loss")["ctc_loss"] == 0.2
    assert weights(50, "attention_decoder_loss")["attention_decoder_loss"] == 0.8
    assert (
        weights(0, "rnnt_loss", "ctc_loss")["rnnt_loss"],
        weights(0, "rnnt_loss", "ctc_loss")["ctc_loss"],
    ) == (1.0, 0.2)
    assert [weights(n, "ctc_loss", cr_loss_scale=0.4)["cr_loss"] for n in (0, 50, 100, 900)] == pytest.approx(
        [0.0, 0.2, 0.4, 0.4]
    )
    assert loss_weights(LossOptions(warm_step=0), 1, ["ctc_loss"])["cr_loss"] == 0.2
    assert [weights(n)[name] for n in (50, 200) for name in both[:2]] == pytest.approx([0.75, 0.55, 0.5, 1.0])


def test_loss_scales_move_to_their_final_values():
    assert transducer_loss_scales(0, 100, 0.5) == (1.0, 0.1)
    assert transducer_loss_scales(50, 100, 0.5) == pytest.approx((0.75, 0.55))
    assert transducer_loss_scales(100, 100, 0.5) == (0.5, 1.0)
    assert transducer_loss_scales(5, 0, 0.5) == (0.5, 1.0)


def test_delay_penalty_waits_for_the_warm_up():
    opts = LossOptions(warm_step=100, delay_penalty=0.02, fast_emit_lambda=0.01)
    assert early_emission(opts, 99) == {"fast_emit_lambda": 0.01}
    assert early_emission(opts, 100) == {"delay_penalty": 0.02, "fast_emit_lambda": 0.01}
    assert early_emission(LossOptions(), 10_000) == {}


@pytest.mark.parametrize(
    "options,message",
    [
        ({"use_cr_ctc": True}, "--use-ctc 1"),
        ({**CTC, "fast_emit_lambda": 0.01}, "--fast-emit-lambda are about a transducer"),
        ({**CTC, "use_cr_ctc": True, "enable_spec_aug": True}, "--enable-spec-aug 0"),
        (
            {**CTC, "use_attention_decoder": True, "ctc_loss_scale": 0.1},
            r"\(0.1\) and --attention-decoder-loss-scale \(0.8\) must sum to 1",
        ),
    ],
)
def test_contradictions_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        AsrRecipe(params_of(tmp_path, **options), fake_run.CORPUS)


def test_heads_that_go_together_are_accepted_and_values_out_of_bounds_are_not():
    for options in (
        CTC,
        {**CTC, **AED, **CR},
        {**CTC, "use_attention_decoder": True},
        {"use_attention_decoder": True},
        {"use_ctc": True, **CR},
    ):
        check_heads(
            {**defaults_of(DataOptions), **defaults_of(ModelOptions), **defaults_of(LossOptions), **options}
        )
    for changes, name in (
        ({"time_mask_ratio": 9.0}, "time-mask-ratio"),
        ({"cr_loss_scale": -1.0}, "cr-loss-scale"),
        ({"delay_penalty": -0.1}, "delay-penalty"),
        ({"fast_emit_lambda": -0.1}, "fast-emit-lambda"),
        ({"label_smoothing": 1.0}, "label-smoothing"),
    ):
        with pytest.raises(UserError, match=name):
            from_params(LossOptions, changes)
    full = {
        **defaults_of(DataOptions),
        **defaults_of(ModelOptions),
        **defaults_of(LossOptions),
        "loss": "full",
    }
    check_heads(full)
    with pytest.raises(UserError, match="no use for --prune-range, --lm-scale, which"):
        check_heads({**full, "prune_range": 7, "lm_scale": 0.1})


def test_another_vocabulary_is_refused(tmp_path):
    recipe = HeadsRecipe(params_of(tmp_path, **CTC, **AED), fake_run.CORPUS)
    recipe.tokenizer = SimpleNamespace(pieces=["<blk>", "a"], vocab_size=2, path="x/tokens.txt")
    with pytest.raises(UserError, match="<sos/eos> as the token with id 1, which x/tokens.txt does not have"):
        recipe.build_model()


@pytest.mark.parametrize(
    "options,names",
    [
        ({**CTC}, {"ctc_loss"}),
        (
            {
                "loss": "full",
                "use_ctc": True,
                "transducer_type": "hat",
                "delay_penalty": 0.02,
                "warm_step": 2,
            },
            {"rnnt_loss", "ctc_loss"},
        ),
        ({**CTC, **AED}, {"ctc_loss", "attn_decoder_loss"}),
        ({**CTC, **CR}, {"ctc_loss", "cr_loss"}),
        (
            {**AED, **CR, "use_ctc": True},
            {"simple_loss", "pruned_loss", "ctc_loss", "attn_decoder_loss", "cr_loss"},
        ),
    ],
)
def test_loss_is_the_weighted_sum_of_its_parts(tmp_path, options, names):
    torch.manual_seed(0)
    recipe = HeadsRecipe(params_of(tmp_path, **options), fake_run.CORPUS)
    model = recipe.build_model().train()
    batch = recipe.build_datamodule()._batch(1, 0)
    before = batch["inputs"].clone()
    out = recipe.compute_loss(model, batch, 3)
    assert set(out.parts) == names and out.loss.isfinite() and torch.equal(batch["inputs"], before)
    heads = {"attention_decoder_loss" if n == "attn_decoder_loss" else n for n in names}
    expected = loss_weights(recipe.loss_options, 3, heads)
    total = sum(
        expected["attention_decoder_loss" if n == "attn_decoder_loss" else n] * loss
        for n, loss in out.parts.items()
    )
    torch.testing.assert_close(out.loss.detach(), total)
    assert out.frames == sum(n // 4 for n in (120, 96, 72))
    each = recipe.compute_loss(model, batch, 3, reduction="none")
    assert each.loss.shape == (3,)


def test_label_smoothing(tmp_path):
    models = []
    for options in ({}, {"label_smoothing": 0.0}):
        torch.manual_seed(0)
        models.append(
            HeadsRecipe(params_of(tmp_path, **CTC, **AED, **options), fake_run.CORPUS).build_model().eval()
        )
    memory, lens, sentences = torch.randn(2, 7, 32), torch.tensor([7, 4]), [[2, 3], [4]]
    with torch.no_grad():
        smooth, hard = (model.attention_decoder(memory, lens, sentences) for model in models)
        nll = models[1].attention_decoder.nll(memory, lens, sentences)
    torch.testing.assert_close(hard, nll.sum(dim=1))
    assert (smooth - hard).abs().min() > 1e-3


def test_one_view_in_evaluation_equals_two_equal_ones(tmp_path):
    torch.manual_seed(0)
    recipe = HeadsRecipe(params_of(tmp_path, **CTC, **CR), fake_run.CORPUS)
    model = recipe.build_model().eval()
    batch = recipe.build_datamodule()._batch(1, 0)
    with torch.no_grad():
        out = recipe.compute_loss(model, batch, 3)
        x, x_lens = batch["inputs"], batch["supervisions"]["num_frames"].long()
        y = recipe.tokenizer.encode(batch["supervisions"]["text"])
        two = model(x.repeat(2, 1, 1), x_lens.repeat(2), y + y, use_cr_ctc=True)
    assert set(out.parts) == {"ctc_loss"} and two.cr_loss.abs() < 1e-3
    torch.testing.assert_close(out.loss, two.ctc_loss, atol=1e-3, rtol=1e-4)


def test_a_run_continues_exactly_and_records_its_losses(tmp_path):
    torch.set_num_threads(1)
    options = {**CTC, **AED, **CR}
    assert run(tmp_path / "whole", **options) == 0
    for stop in (3, 8, 0):
        assert run(tmp_path / "parts", max_steps=stop, **options) == 0
    whole, parts = (
        [
            {k: v for k, v in r.items() if k not in ("rate", "time")}
            for r in read_metrics(tmp_path / d / "metrics.jsonl")
        ]
        for d in ("whole", "parts")
    )
    assert parts == whole
    train = [r for r in whole if r["type"] == "train"]
    assert len(train) == fake_run.BATCHES and all(
        math.isfinite(r["loss"]) and r["cr_loss"] > 0 for r in train
    )
    assert all(r["attn_decoder_loss"] > 0 for r in train)
    a, b = (read_whole(tmp_path / d / "epoch-1.pt")["model"] for d in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_with_the_full_loss_records_it(tmp_path):
    torch.set_num_threads(1)
    options = {
        "loss": "full",
        "joiner_mode": "gated",
        "fast_emit_lambda": 0.01,
        "delay_penalty": 0.01,
        "warm_step": 4,
        "max_steps": 6,
    }
    assert run(tmp_path, **options) == 0
    train = [r for r in read_metrics(tmp_path / "metrics.jsonl") if r["type"] == "train"]
    assert len(train) == 6 and all(
        r["rnnt_loss"] == pytest.approx(r["loss"]) and "pruned_loss" not in r for r in train
    )


def test_training_moves_attention_decoder_and_ctc(tmp_path):
    assert run(tmp_path, **CTC, **AED, warmup_batches=0.0) == 0
    torch.manual_seed(42)
    trained = read_whole(tmp_path / "epoch-1.pt")["model"]
    fresh = build_model(
        from_params(ModelOptions, {**SIZES, **CTC, "use_attention_decoder": True}), fake_run.VOCAB
    )
    for name, value in fresh.state_dict().items():
        if name.startswith(("attention_decoder.", "ctc_output.")):
            assert not torch.equal(trained[name], value), name
