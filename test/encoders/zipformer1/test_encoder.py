"""The first, streaming Zipformer: sizes and names, padding, chunks, export, and what training
draws.
"""

import random

import pytest
import torch
from small_zipformer1 import OPTIONS, features, model_of, stream

from asr_core.encoders.protocol import FrontEnd, StreamingEncoder
from asr_core.encoders.states import select_states, stack_states
from asr_core.export.torchscript import script_model
from asr_core.models.build import build_model
from asr_core.nn.scaling import set_batch_count


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
    second = select_states(states, dims, torch.tensor([1]))
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
