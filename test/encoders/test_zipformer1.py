"""The first, streaming Zipformer: parts against formulas, sizes and names, padding, chunks, export, training's draws, foreign files."""

import argparse
import copy
import math
import random

import pytest
import torch
import torch.nn.functional as F

from asr_core.cli.decoding_arguments import add_model_options
from asr_core.encoders.chunk_options import chunk_and_left
from asr_core.encoders.protocol import FrontEnd, StreamingEncoder
from asr_core.encoders.states import stack_states, unstack_states
from asr_core.encoders.zipformer1.attention import RelPositionalEncoding, RelPositionMultiheadAttention
from asr_core.encoders.zipformer1.layer import CausalConvolutionModule
from asr_core.encoders.zipformer1.modules import (
    ActivationBalancer,
    AttentionDownsample,
    BasicNorm,
    BiasedUpsample,
    CumulativeMean,
    WeightedSum,
)
from asr_core.export.torchscript import script_model
from asr_core.models.build import build_model
from asr_core.models.checkpoint import load_averaged_model, load_checkpoint_file, model_from_checkpoint
from asr_core.models.options import options_class
from asr_core.nn.scaling import set_batch_count
from asr_core.ops.basic_norm import basic_norm, basic_norm_plain
from asr_core.ops.double_swish import double_swish
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

OPTIONS = options_class("zipformer1")
SIZES = dict(
    num_encoder_layers="1,2,1,1,2",
    feedforward_dims="24",
    nhead="2",
    encoder_dims="16,16,20,24,24",
    attention_dims="16",
    encoder_unmasked_dims="12",
    cnn_module_kernels="5,5,7,3,5",
    decoder_dim=16,
    joiner_dim=16,
)


def model_of(**options):
    """A small model with lively weights, in double precision, so that equal is equal."""
    torch.manual_seed(0)
    random.seed(0)
    model = build_model(from_params(OPTIONS, {**SIZES, **options}), vocab_size=11)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
    return model.double().eval()


def features(*lens):
    torch.manual_seed(1)
    return torch.randn(len(lens), max(lens), 80, dtype=torch.float64), torch.tensor(lens)


def stream(step, model, x, lens, states):
    """Encoder output of all windows, each made by ``step``."""
    outs = []
    for begin in range(0, x.size(1) - model.geometry.trimmed_frames, model.chunk_frames):
        window = x[:, begin : begin + model.window_frames]
        out, _, states = step(
            window, (lens - begin).clamp(model.geometry.trimmed_frames, model.window_frames), states
        )
        outs.append(out)
    return torch.cat(outs, dim=1)


def expected_names():
    """Names and shapes of icefall's default model, with the front end beside the encoder."""
    shapes = {
        f"decoder.{n}": s for n, s in {"embedding.weight": (500, 512), "conv.weight": (512, 4, 2)}.items()
    }
    linear = {
        "joiner.encoder_proj": (512, 384),
        "joiner.decoder_proj": (512, 512),
        "joiner.output_linear": (500, 512),
    }
    linear.update(
        {"simple_am_proj": (500, 384), "simple_lm_proj": (500, 512), "encoder_embed.out": (384, 19 * 128)}
    )
    for i, channels in zip((0, 3, 6), ((8, 1), (32, 8), (128, 32))):
        linear[f"encoder_embed.conv.{i}"] = (*channels, 3, 3)
        shapes[f"encoder_embed.conv.{i + 1}.count"] = ()
    for i, (layers, width, ds) in enumerate(
        zip((2, 4, 3, 2, 4), (1024, 1024, 2048, 2048, 1024), (1, 2, 4, 8, 2))
    ):
        stack = f"encoder.encoders.{i}" + (".encoder" if ds > 1 else "")
        if ds > 1:
            of_stack = {"downsample.query": (384,), "upsample.bias": (ds, 384), "out_combiner.weight1": ()}
            shapes.update({f"encoder.encoders.{i}.{name}": shape for name, shape in of_stack.items()})
        for layer in (f"{stack}.layers.{k}." for k in range(layers)):
            scalars = ["bypass_scale", "norm_final.eps", "balancer.count"]
            linear[layer + "self_attn.in_proj"] = (2 * 192 + 96 + 8 * 4, 384)
            linear[layer + "self_attn.out_proj"] = linear[layer + "self_attn.out_proj2"] = (384, 96)
            shapes[layer + "self_attn.linear_pos.weight"] = (8 * 4, 384)
            shapes[layer + "self_attn.in_proj2.weight"] = (96, 384)
            shapes[layer + "pooling.proj.weight"] = (384, 384)
            for k in (1, 2, 3):
                linear[f"{layer}feed_forward{k}.in_proj"], linear[f"{layer}feed_forward{k}.out_proj"] = (
                    (width, 384),
                    (384, width),
                )
                scalars.append(f"feed_forward{k}.balancer.count")
            for conv in (f"{layer}conv_module{k}." for k in (1, 2)):
                linear[conv + "pointwise_conv1"], linear[conv + "pointwise_conv2"] = (
                    (768, 384, 1),
                    (384, 384, 1),
                )
                linear[conv + "depthwise_conv"] = (384, 1, 31)
                scalars += [conv[len(layer) :] + f"deriv_balancer{j}.count" for j in (1, 2)]
            shapes.update({layer + name: () for name in scalars})
    shapes.update({"encoder.skip_modules.4.weight1": (), "encoder.downsample_output.query": (384,)})
    for name, shape in linear.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes


def test_default_model_has_icefalls_parameters():
    with torch.device("meta"):
        model = build_model(OPTIONS(), vocab_size=500)
    state = model.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected_names() and len(
        state
    ) == 682
    assert sum(p.numel() for p in model.parameters()) == 70_369_391
    assert all((value.dtype == torch.int64) == name.endswith(".count") for name, value in state.items())
    shapes = [tuple(s.shape) for s in model.get_init_states(3)]
    assert shapes[:5] == [(layers, 3) for layers in (2, 4, 3, 2, 4)] and shapes[5] == (2, 3, 384)
    assert shapes[10:15] == [
        (layers, 64 // ds, 3, 192) for layers, ds in zip((2, 4, 3, 2, 4), (1, 2, 4, 8, 2))
    ]
    assert (
        shapes[18] == shapes[23] == (2, 8, 3, 96)
        and shapes[25] == shapes[30] == (2, 3, 384, 30)
        and shapes[35:] == [(3, 0), (3,)]
    )
    assert isinstance(model.encoder, StreamingEncoder) and isinstance(model.encoder_embed, FrontEnd)


@pytest.mark.parametrize("chunk, left", [(8, 8), (8, 32), (16, 64), (48, 48), (-1, -1), (16, -1)])
@torch.no_grad()
def test_padding_changes_nothing(chunk, left):
    model = model_of()
    model.set_chunk(chunk, left)
    x, lens = features(203, 141, 88, 13, 9)
    out, out_lens = model.forward_encoder(x, lens)
    for row, length in enumerate(lens.tolist()):
        alone, alone_lens = model.forward_encoder(x[row : row + 1, :length], lens[row : row + 1])
        assert out_lens[row] == alone_lens[0] == alone.size(1) == ((length - 7) // 2 + 1) // 2
        torch.testing.assert_close(out[row, : alone.size(1)], alone[0], atol=1e-10, rtol=0)


@pytest.mark.parametrize("chunk, left", [(8, 8), (8, 32), (16, 64), (48, 48)])
@torch.no_grad()
def test_chunks_one_by_one_equal_chunk_masks(chunk, left):
    model = model_of(chunk_size=str(chunk), left_context_frames=str(left))
    x, lens = features(6 * 2 * chunk + 7, 4 * 2 * chunk + 20, 31)
    expected, out_lens = model.forward_encoder(x, lens)
    found = stream(model.streaming_forward, model, x, lens, model.get_init_states(3))
    for row, length in enumerate(out_lens.tolist()):
        torch.testing.assert_close(found[row, :length], expected[row, :length], atol=1e-10, rtol=0)
    whole = model_of(chunk_size="-1").forward_encoder(x, lens)[0]
    assert (whole[0] - expected[0]).abs().max() > 0.01


@torch.no_grad()
def test_streams_of_a_batch_equal_single_ones():
    model = model_of(decode_chunk_len=32, num_left_chunks=2)
    assert (model.encoder.chunk_size, model.encoder.left_context_frames) == ((16,), (32,))
    x, lens = features(*[3 * 32 + 7] * 2)
    dims = model.state_batch_dims()
    alone = [
        stream(model.streaming_forward, model, x[i : i + 1], lens[:1], model.get_init_states(1))
        for i in range(2)
    ]
    _, _, ahead = model.streaming_forward(x[:1, :39], lens[:1].clamp(max=39), model.get_init_states(1))
    states = stack_states([ahead, model.get_init_states(1)], dims)  # the first has begun a chunk earlier
    window = torch.stack([x[0, 32:71], x[1, :39]])
    out, _, states = model.streaming_forward(window, torch.tensor([39, 39]), states)
    torch.testing.assert_close(out[0], alone[0][0, 8:16], atol=1e-10, rtol=0)
    torch.testing.assert_close(out[1], alone[1][0, :8], atol=1e-10, rtol=0)
    _, second = unstack_states(states, dims)
    out, _, _ = model.streaming_forward(x[1:, 32:71], torch.tensor([39]), second)
    torch.testing.assert_close(out[0], alone[1][0, 8:16], atol=1e-10, rtol=0)


@torch.no_grad()
def test_scripts_equal_the_model():
    three = {
        "zipformer_downsampling_factors": "1,4,2",
        "encoder_dims": "16,16,20",
        "cnn_module_kernels": "5",
        "num_encoder_layers": "1",
    }
    model = model_of(chunk_size="16", left_context_frames="32", **three)
    x, lens = features(3 * 32 + 7, 80)
    scripted = script_model(model, True).encoder
    expected = stream(model.streaming_forward, model, x, lens, model.get_init_states(2))
    found = stream(scripted, model, x, lens, scripted.get_init_states(2, torch.device("cpu")))
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    model.set_chunk(-1, -1)
    expected, _ = model.forward_encoder(x, lens)
    torch.testing.assert_close(script_model(model, False).encoder(x, lens)[0], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("frames", [9, 12, 13, 24, 57, 203])
def test_training_of_odd_and_short_utterances(frames):
    model = model_of(short_chunk_size=8).float().train()
    set_batch_count(model, 500)
    x, lens = features(frames, max(9, frames - 11))
    for _ in range(4):
        losses = model(x.float(), lens, [[1, 2], [3]])
        (losses.simple_loss + losses.pruned_loss).backward()
    for p in model.parameters():
        assert p.grad is None or torch.isfinite(p.grad).all()
    assert model.encoder_embed.conv[0].weight.grad.abs().max() > 0


def test_training_draws_chunks_as_the_recipe_does():
    model = model_of(short_chunk_size=50, num_left_chunks=3).encoder.train()
    random.seed(3)
    drawn = [model._draw_chunk_for(8 * 40 + 5) for _ in range(2000)]
    assert {c for c in drawn if c[0] > 0} == {(8 * k, 3) for k in range(1, 7)}
    assert abs(sum(c == (-1, -1) for c in drawn) / 2000 - 9 / 39) < 0.05  # r = 31 ... 39 of 1 ... 39
    assert {model._draw_chunk_for(n) for n in (1, 7, 8, 15)} == {(-1, -1)}
    assert model.eval()._draw_chunk_for(1000) == (16, 3)


def test_what_training_leaves_out():
    model = model_of().train()
    encoder = model.encoder
    stack = encoder.encoders[1].encoder
    random.seed(0)
    set_batch_count(model, 0.0)
    assert 0.4 < sum(sum(stack._draw_layers()) for _ in range(1000)) / 2000 < 0.6
    assert 0.7 < sum(sum(stack.layers[0]._draw_modules()) for _ in range(500)) / 2000 < 0.9
    set_batch_count(model, 20000.0)
    assert 0.92 < sum(sum(stack._draw_layers()) for _ in range(1000)) / 2000 < 0.98
    assert all(all(stack.layers[0]._draw_modules()) for _ in range(100))
    masks = encoder._draw_feature_masks(torch.zeros(99, 40, 16))
    assert [tuple(m.shape) for m in masks] == [
        (99, 40, 16),
        (50, 40, 16),
        (25, 40, 20),
        (13, 40, 24),
        (50, 40, 24),
    ]
    assert (
        all(bool((m[:, :, :12] == 1).all()) for m in masks) and 0.05 < 1 - masks[3][:, :, 12:].mean() < 0.25
    )
    assert torch.equal(masks[0][:, :, 12], masks[3][:, :, 12].repeat_interleave(8, dim=0)[:99])
    model.eval()
    assert all(stack._draw_layers()) and encoder._draw_skip()


def test_balancer_counts_batches():
    balancer = ActivationBalancer(3, min_prob=0.25).train()
    x = torch.randn(5, 3, requires_grad=True)
    for _ in range(7):
        balancer(x)
    assert balancer.prob == pytest.approx(0.5 ** (1 + 6 / 4000))
    state = balancer.state_dict()
    assert state["count"].dtype == torch.int64 and int(state["count"]) == 7
    other = copy.deepcopy(balancer)
    other.load_state_dict({"count": torch.tensor(40000)})
    other(x)
    assert other.prob == 0.25 and int(other.state_dict()["count"]) == 40001
    assert int(balancer.eval()(x).numel()) == 15 and int(balancer.state_dict()["count"]) == 7


def test_gradients_of_norm_and_activation():
    torch.manual_seed(0)
    x, eps = (
        torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True),
        torch.tensor(-1.3, dtype=torch.float64, requires_grad=True),
    )
    torch.testing.assert_close(basic_norm(x, eps), basic_norm_plain(x, eps))
    torch.testing.assert_close(double_swish(x), x * torch.sigmoid(x - 1))
    assert torch.autograd.gradcheck(basic_norm, (x, eps)) and torch.autograd.gradcheck(double_swish, (x,))
    y = (5 * torch.randn(7, 1000)).requires_grad_()  # the compiled kernels, where there are any
    torch.testing.assert_close(double_swish(y), y * torch.sigmoid(y - 1))
    expected = torch.autograd.grad((y * torch.sigmoid(y - 1)).square().sum(), y)[0]
    torch.testing.assert_close(torch.autograd.grad(double_swish(y).square().sum(), y)[0], expected)
    assert BasicNorm().eps.exp().item() == pytest.approx(0.25)


@torch.no_grad()
def test_small_parts_against_formulas():
    torch.manual_seed(0)
    x = torch.randn(7, 2, 4)
    pooling, down, up, combine = (
        CumulativeMean(4),
        AttentionDownsample(4, 6, 3),
        BiasedUpsample(4, 2),
        WeightedSum(),
    )
    torch.testing.assert_close(pooling(x)[3], F.linear(x[:4].mean(dim=0), pooling.proj.weight))
    y = down(x)
    weights = (x[3:6] @ down.query).softmax(dim=0)
    torch.testing.assert_close(y[1, :, :4], (x[3:6] * weights.unsqueeze(2)).sum(dim=0))
    torch.testing.assert_close(
        y[1, :, 4:], F.linear(torch.cat([x[3], x[4], x[5]], dim=1), down.extra_proj.weight)
    )
    torch.testing.assert_close(
        y[2], torch.cat([x[6], F.linear(x[6].repeat(1, 3), down.extra_proj.weight)], dim=1)
    )
    padded = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    torch.testing.assert_close(down(x, padded)[1, 1, :4], x[3, 1])
    torch.testing.assert_close(up(x)[5], x[2] + up.bias[1])
    combine.weight1.fill_(0.3)
    torch.testing.assert_close(combine(x, y[:1].expand(7, 2, 6)), F.pad(0.3 * x, (0, 2)) + 0.7 * y[:1])
    conv = CausalConvolutionModule(4, 3).eval()
    gated = F.glu(conv.pointwise_conv1(x.permute(1, 2, 0)), dim=1)
    expected = conv.pointwise_conv2(double_swish(conv.depthwise_conv(F.pad(gated, (2, 0)))))
    torch.testing.assert_close(conv(x), expected.permute(2, 0, 1))


@torch.no_grad()
def test_attention_against_its_formula():
    torch.manual_seed(0)
    frames, heads = 5, 2
    attention, x = RelPositionMultiheadAttention(6, 8, heads, 3).eval(), torch.randn(frames, 1, 6)
    pos_emb = RelPositionalEncoding(6, 0.1).eval()(x)
    angle = 2 * 10000 ** (-2 / 6)  # key two frames before the query, second frequency
    assert pos_emb.shape == (1, 9, 6) and pos_emb[0, 2, 2:4].tolist() == pytest.approx(
        [math.sin(angle), math.cos(angle)]
    )
    mask = torch.zeros(1, frames, frames, dtype=torch.bool)
    mask[0, :3, 3:] = True
    out, weights = attention(x, pos_emb, mask)
    q, k, v, p = attention.in_proj(x[:, 0]).split([8, 8, 4, 6], dim=1)
    averaged = torch.zeros(frames, 4)
    for h in range(heads):
        scores = q[:, 4 * h : 4 * h + 4] @ k[:, 4 * h : 4 * h + 4].t()
        pos = attention.linear_pos(pos_emb[0])[:, 3 * h : 3 * h + 3]
        for i in range(frames):
            for j in range(frames):
                scores[i, j] += p[i, 3 * h : 3 * h + 3] @ pos[frames - 1 - (i - j)]
        expected = scores.masked_fill(mask[0], float("-inf")).softmax(dim=1)
        torch.testing.assert_close(weights[h, 0], expected)
        averaged[:, 2 * h : 2 * h + 2] = expected @ v[:, 2 * h : 2 * h + 2]
    torch.testing.assert_close(out[:, 0], attention.out_proj(averaged))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"causal": False}, "always causal"),
        ({"nhead": "2,3"}, "--nhead has 2 entries, but there are 5 stacks"),
        ({"nhead": "3"}, "3 heads do not divide an attention width of 16"),
        ({"encoder_dims": "0"}, "--encoder-dims must be at least 1"),
        ({"encoder_dims": "24,24,20,24,24"}, "widths may only grow"),
        ({"encoder_unmasked_dims": "99"}, "at least that of the unmasked"),
        ({"zipformer_downsampling_factors": "1,2,3,4,1"}, "a stack that is not downsampled|does not divide"),
        ({"short_chunk_size": 7}, "is below the downsampling factor 8"),
        ({"decode_chunk_len": 24}, "a chunk of 12 frames cannot be divided by the downsampling factor 8"),
        ({"decode_chunk_len": 31}, "must be an even number"),
        ({"num_left_chunks": 0}, "--num-left-chunks must be positive"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(UserError, match=message):
        model_of(**options)


def test_chunk_of_decoding():
    recorded = {"decode_chunk_len": 32, "num_left_chunks": 4, "chunk_size": "", "left_context_frames": ""}
    assert chunk_and_left({}, recorded, default=None) == (16, 64)
    assert chunk_and_left({"decode_chunk_len": 64}, recorded, default=None) == (32, 128)
    assert chunk_and_left({"num_left_chunks": 8}, recorded, default=None) == (16, 128)
    assert chunk_and_left({"chunk_size": "8", "left_context_frames": "24"}, recorded, default=None) == (8, 24)
    with pytest.raises(UserError, match="a chunk of 20 frames"):
        model_of().set_chunk(20, 40)


def test_icefalls_checkpoints(tmp_path):
    model = model_of().float()
    theirs = {
        name.replace("encoder_embed.", "encoder.encoder_embed."): value
        for name, value in model.state_dict().items()
    }
    torch.save({"model": theirs}, tmp_path / "pretrained.pt")
    loaded = model_from_checkpoint(
        load_checkpoint_file(tmp_path / "pretrained.pt"), {**SIZES, "encoder": "zipformer1"}
    )
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(UserError, match="encoder_embed.out.weight has shape"):
        model_from_checkpoint(load_checkpoint_file(tmp_path / "pretrained.pt"))
    params = {
        **SIZES,
        "decode_chunk_len": 64,
        "short_chunk_size": 50,
        "num_left_chunks": 4,
        "average_period": 10,
        "vocab_size": 11,
    }
    for epoch in (1, 2):
        average = {f"module.{name}": value for name, value in theirs.items()}
        torch.save(
            {"model": average, "model_avg": theirs, "batch_idx_train": 100 * epoch, **params},
            tmp_path / f"epoch-{epoch}.pt",
        )
    for averaged in (True, False):
        loaded, recorded = load_averaged_model(tmp_path, 2, 0, 1, averaged, {"short_chunk_size": 16})
        torch.testing.assert_close(loaded.state_dict(), model.state_dict())
        assert recorded.encoder == "zipformer1" and loaded.encoder.chunk_size == (32,)


def test_chunk_of_the_command_line_holds_against_the_recipes():
    defaults = {"encoder": "zipformer1", "chunk_size": "16", "left_context_frames": "64"}
    for argv, expected in (
        ([], (16, 64)),
        (["--decode-chunk-len", "64"], (32, 128)),
        (["--chunk-size", "8"], (8, 64)),
    ):
        parser = argparse.ArgumentParser()
        add_model_options(parser, defaults, argv)
        assert chunk_and_left(vars(parser.parse_args(argv)), {}, default=None) == expected
