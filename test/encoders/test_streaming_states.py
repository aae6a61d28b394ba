"""Masks, states of many streams, and the checks of the encoder's settings."""

import random

import pytest
import torch

from asr_core.encoders import Zipformer2
from asr_core.encoders.protocol import StreamingEncoder
from asr_core.encoders.states import select_states, stack_states
from asr_core.nn.masks import chunk_mask, make_pad_mask
from asr_core.utils.errors import UserError


def encoder(**kwargs):
    torch.manual_seed(0)
    settings = dict(
        downsampling_factor=(1, 2),
        encoder_dim=(16, 24),
        num_encoder_layers=(1, 2),
        encoder_unmasked_dim=12,
        query_head_dim=4,
        pos_head_dim=4,
        value_head_dim=4,
        num_heads=2,
        feedforward_dim=16,
        cnn_module_kernel=(7, 5),
        pos_dim=8,
        causal=True,
        chunk_size=(8,),
        left_context_frames=(16,),
    )
    return Zipformer2(**{**settings, **kwargs}).eval()


def test_masks():
    assert make_pad_mask(torch.tensor([1, 3])).tolist() == [[False, True, True], [False, False, False]]
    assert make_pad_mask(torch.tensor([1]), 2).tolist() == [[False, True]]
    seen = (~chunk_mask(6, 2, 1, torch.device("cpu"))).int().tolist()
    assert seen == [[1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 1, 1, 0, 0]] * 2 + [[0, 0, 1, 1, 1, 1]] * 2
    assert (~chunk_mask(6, 2, -1, torch.device("cpu"))).int().tolist()[5] == [1] * 6


def test_streams_can_be_joined_and_split_at_any_time():
    model = encoder()
    assert isinstance(model, StreamingEncoder)
    dims = model.state_batch_dims()
    torch.manual_seed(1)
    x = torch.randn(4, 3, 8, 16)  # chunks, streams, frames
    lens = torch.full((3,), 8)

    with torch.no_grad():
        alone = []
        for n in range(3):
            states, outs = model.get_init_states(), []
            for c in range(4):
                out, _, states = model.streaming_forward(x[c, n : n + 1], lens[:1], states)
                outs.append(out)
            alone.append((torch.cat(outs, 1), states))

        per_stream = [model.get_init_states() for _ in range(3)]
        outs = []
        for c in range(4):
            out, out_lens, states = model.streaming_forward(x[c], lens, stack_states(per_stream, dims))
            assert out_lens.tolist() == [4, 4, 4]
            per_stream = [select_states(states, dims, torch.tensor([n])) for n in range(3)]
            outs.append(out)
    together = torch.cat(outs, 1)
    for n, (out, states) in enumerate(alone):
        torch.testing.assert_close(together[n : n + 1], out, atol=1e-5, rtol=1e-5)
        for a, b in zip(per_stream[n], states):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError):
        stack_states([states[:-1]], dims)
    with pytest.raises(ValueError):
        select_states(states[:-1], dims, torch.tensor([0]))


def test_state_shapes():
    model = Zipformer2(
        downsampling_factor=(1, 2, 4, 8, 4, 2),
        encoder_dim=(192, 256, 384, 512, 384, 256),
        num_encoder_layers=(2, 2, 3, 4, 3, 2),
        num_heads=(4, 4, 4, 8, 4, 4),
        query_head_dim=32,
        encoder_unmasked_dim=192,
        feedforward_dim=8,
        cnn_module_kernel=(31, 31, 15, 15, 15, 31),
        pos_dim=48,
        causal=True,
        chunk_size=(16,),
        left_context_frames=(128,),
    )
    states = model.get_init_states(3)
    assert len(states) == 97  # and the front end's makes 98
    shapes = [tuple(s.shape) for s in states]
    assert shapes[:6] == [
        (128, 3, 128),
        (1, 3, 128, 144),
        (128, 3, 48),
        (128, 3, 48),
        (3, 192, 15),
        (3, 192, 15),
    ]
    assert shapes[42:48] == [
        (16, 3, 256),
        (1, 3, 16, 384),
        (16, 3, 96),
        (16, 3, 96),
        (3, 512, 7),
        (3, 512, 7),
    ]
    assert states[-1].dtype == torch.int32 and shapes[-1] == (3,)
    assert [s.shape[d] for s, d in zip(states, model.state_batch_dims())] == [3] * 97


def test_streaming_is_masked_attention():
    model = encoder()
    x = torch.randn(2, 48, 16)
    lens = torch.tensor([48, 48])
    with torch.no_grad():
        whole, _ = model(x, lens)
        states, outs = model.get_init_states(2), []
        for c in range(0, 48, 8):
            out, _, states = model.streaming_forward(x[:, c : c + 8], lens * 0 + 8, states)
            outs.append(out)
    torch.testing.assert_close(torch.cat(outs, 1), whole, atol=1e-5, rtol=1e-5)
    assert states[-1].tolist() == [48, 48]


def test_chunk_drawing():
    model = encoder(chunk_size=(8, 16, -1), left_context_frames=(16, 4, -1)).train()
    random.seed(0)
    drawn = {model._draw_chunk() for _ in range(300)}
    assert drawn == {(8, 2), (8, 1), (8, -1), (16, 1), (16, -1), (-1, -1)}
    model.eval()
    assert {model._draw_chunk() for _ in range(20)} == {(8, 2)}
    with pytest.raises(UserError, match="cannot be divided"):
        encoder(chunk_size=(9,))._draw_chunk()
    with pytest.raises(UserError, match="too short"):
        encoder(chunk_size=(2,), left_context_frames=(2,))._draw_chunk()


@pytest.mark.parametrize(
    "settings,message",
    [
        (dict(causal=False), "not causal"),
        (dict(chunk_size=(8, 16)), "one chunk size"),
        (dict(chunk_size=(-1,)), "one chunk size"),
        (dict(left_context_frames=(-1,)), "one chunk size"),
        (dict(left_context_frames=(20,)), "multiple"),
    ],
)
def test_streaming_needs_settings_that_stream(settings, message):
    with pytest.raises(UserError, match=message):
        encoder(**settings).get_init_states()


def test_feature_masks_hide_the_channels_that_may_be_masked():
    torch.manual_seed(0)
    model = encoder()
    masks = model._draw_feature_masks(torch.zeros(5, 2000, 16))
    assert [tuple(m.shape) for m in masks] == [(1, 2000, 16), (1, 2000, 24)]
    for mask, dim in zip(masks, (16, 24)):
        assert (mask[..., :12] == 1).all()
        middle = 12 + (dim - 12) // 2
        assert abs(mask[0, :, 12].mean().item() - 0.875) < 0.03
        assert abs(mask[0, :, middle].mean().item() - 0.875**2) < 0.03
        assert (mask[0, :, middle] <= mask[0, :, 12]).all()
    assert torch.equal(masks[0][0, :, 12], masks[1][0, :, 12])


def test_output_takes_wider_channels_from_earlier_stacks():
    model = encoder(
        downsampling_factor=(1, 2, 1), encoder_dim=(16, 24, 20), num_encoder_layers=1, cnn_module_kernel=5
    )
    outputs = [torch.full((4, 1, dim), float(dim)) for dim in (16, 24, 20)]
    with torch.no_grad():
        out = model._output(outputs)
    assert out.shape == (1, 2, 24) and out[0, 0].tolist() == [20.0] * 20 + [24.0] * 4


def test_output_may_be_longer_than_even_lengths():
    model = encoder()
    with torch.no_grad():
        out, lens = model(torch.randn(2, 21, 16), torch.tensor([21, 20]))
    assert out.shape == (2, 11, 24) and lens.tolist() == [11, 10]
