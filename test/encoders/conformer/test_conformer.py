"""The Conformer: its modules against formulas, padding, chunks, export, and the sizes of its
presets.
"""

import random

import pytest
import torch
import torch.nn.functional as F

from asr_core.encoders.conformer.attention import relative_positions, sinusoids
from asr_core.encoders.conformer.layer import ConformerLayer
from asr_core.encoders.conformer.modules import ConformerConvolution
from asr_core.encoders.conformer.options import ConformerOptions
from asr_core.encoders.protocol import FrontEnd, StreamingEncoder
from asr_core.export.torchscript import script_model
from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

OPTIONS = options_class("conformer")
SIZES = dict(
    num_encoder_layers=2,
    encoder_dim=16,
    nhead=2,
    feedforward_dim=24,
    cnn_module_kernel=6,
    front_end_channels=4,
    decoder_dim=16,
    joiner_dim=16,
    norm_eps=1e-5,
)
STREAM = dict(causal=True, chunk_size="8", left_context_frames="16")
VARIANTS = [
    {},
    {
        "front_end": "narrow",
        "scale_bias": True,
        "per_dim_scale": False,
        "abs_pos_emb": False,
        "cnn_module_kernel": 5,
    },
    {"conv_norm": "layer", "layer_order": "lconv_before_mhsa", "activation": "double_swish"},
    {"front_end": "stack", "layer_order": "lconv_before_ff", "chunk_size": "9", "left_context_frames": "18"},
    {
        "position": "key_shift",
        "position_clip": 5,
        "abs_pos_emb": False,
        "long_skip": True,
        "per_dim_scale": False,
    },
    {"position": "none", "left_only_attention": True, "long_skip": True, "abs_pos_emb": False},
    {"left_only_attention": True, "front_end": "vgg-stack", "chunk_size": "9", "left_context_frames": "9"},
]


def model_of(**options):
    """A small model with lively weights and running statistics."""
    torch.manual_seed(0)
    random.seed(0)
    model = build_model(from_params(OPTIONS, {**SIZES, **options}), vocab_size=11)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model.eval()


def features(*lens):
    torch.manual_seed(1)
    return torch.randn(len(lens), max(lens), 80), torch.tensor(lens)


@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_padding_changes_nothing(options):
    for extra in ({}, STREAM, {**STREAM, "chunk_size": "12"}):
        model = model_of(**{**extra, **options})
        x, lens = features(83, 61, 40)
        out, out_lens = model.forward_encoder(x, lens)
        for row, length in zip(range(3), lens.tolist()):
            alone, alone_lens = model.forward_encoder(x[row : row + 1, :length], lens[row : row + 1])
            assert out_lens[row] == alone_lens[0] == alone.size(1)
            torch.testing.assert_close(out[row, : alone.size(1)], alone[0], atol=1e-5, rtol=1e-4)
            assert not out[row, alone.size(1) :].any()


@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_chunks_one_by_one_equal_chunk_masks(options):
    model = model_of(**{**STREAM, **options})
    assert isinstance(model.encoder, StreamingEncoder) and isinstance(model.encoder_embed, FrontEnd)
    step, window, geometry = model.chunk_frames, model.window_frames, model.geometry
    x, _ = features(*[5 * step + geometry.look_ahead] * 2)
    length = 5 * step + geometry.trimmed_frames
    whole, lens = model.forward_encoder(x[:, :length], torch.tensor([length] * 2))
    states, outs = model.get_init_states(2), []
    for i in range(5):
        out, out_lens, states = model.streaming_forward(
            x[:, i * step : i * step + window], torch.tensor([window] * 2), states
        )
        assert out_lens.tolist() == [step // geometry.subsampling_factor] * 2
        outs.append(out)
    assert lens.tolist() == [torch.cat(outs, 1).size(1)] * 2
    torch.testing.assert_close(torch.cat(outs, dim=1), whole, atol=1e-5, rtol=1e-4)
    for state, other, dim in zip(states, model.get_init_states(2), model.state_batch_dims()):
        assert state.shape == other.shape and state.size(dim) == 2


@torch.no_grad()
def test_nothing_is_seen_beyond_a_chunk_and_its_left_context():
    model = model_of(**STREAM, cnn_module_kernel=1)
    x, lens = features(96)
    out, _ = model.forward_encoder(x, lens)
    later = x.clone()
    later[:, 64:] += 1.0
    changed, _ = model.forward_encoder(later, lens)
    torch.testing.assert_close(changed[:, :16], out[:, :16])
    assert not torch.isclose(changed[:, 16:], out[:, 16:]).all()
    earlier = x.clone()
    earlier[:, :12] += 1.0  # two layers of two chunks of left context reach 64 frames back
    changed, _ = model.forward_encoder(earlier, lens)
    torch.testing.assert_close(changed[:, 20:], out[:, 20:])
    assert not torch.isclose(changed[:, 4:8], out[:, 4:8]).all()


@torch.no_grad()
def test_left_only_attention_sees_the_past_alone():
    for options in ({}, STREAM, {**STREAM, "chunk_size": "-1", "left_context_frames": "-1"}):
        model = model_of(**options, left_only_attention=True, cnn_module_kernel=1, abs_pos_emb=False)
        x, lens = features(96)
        out, _ = model.forward_encoder(x, lens)
        later = x.clone()
        later[:, 64:] += 1.0  # frame 16 is the first that the front end makes of these
        changed, _ = model.forward_encoder(later, lens)
        torch.testing.assert_close(changed[:, :16], out[:, :16])
        assert not torch.isclose(changed[:, 16:], out[:, 16:]).all(dim=2).any()


@torch.no_grad()
def test_left_only_attention_to_all_of_the_past_gives_the_same_in_any_chunks():
    model = model_of(causal=True, chunk_size="-1", left_context_frames="-1", left_only_attention=True)
    x, lens = features(96)
    whole, _ = model.forward_encoder(x, lens)
    for chunk in (8, 16):
        model.set_chunk(chunk, 48)
        states, outs = model.get_init_states(1), []
        for piece in x.split(2 * chunk, dim=1):
            out, _, states = model.streaming_forward(piece, torch.tensor([2 * chunk]), states)
            outs.append(out)
        torch.testing.assert_close(torch.cat(outs, dim=1), whole, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_long_skip_adds_the_input_to_each_layer():
    model = model_of(long_skip=True, position="none", abs_pos_emb=False)
    x = torch.randn(1, 9, 16)
    out, _, stacks = model.encoder.forward_stacks(x, torch.tensor([9]))
    y = first = x.transpose(0, 1)
    for layer, stack in zip(model.encoder.layers, stacks):
        y = layer(y, y.new_zeros(1, 0, 0)) + first
        torch.testing.assert_close(stack, y)
    torch.testing.assert_close(out, y.transpose(0, 1))


@torch.no_grad()
def test_absolute_positions_are_added_to_the_input():
    model = model_of()
    x = torch.randn(2, 9, 16)
    lens = torch.tensor([9, 9])
    positions = sinusoids(torch.arange(9), 16)
    with_positions, _ = model.encoder(x, lens)
    model.encoder.abs_pos_emb = False
    torch.testing.assert_close(model.encoder(x + positions, lens)[0], with_positions)
    assert not torch.allclose(model.encoder(x, lens)[0], with_positions)


def test_dropout_of_each_place():
    places = {"embed_dropout": 0.11, "ff_dropout": 0.12, "attention_dropout": 0.13, "conv_dropout": 0.14}
    for given in ({}, *({name: rate} for name, rate in places.items()), places):
        model = model_of(dropout=0.2, **given)
        rate = {name: given.get(name, 0.2) for name in places}
        assert model.encoder_embed.dropout.p == rate["embed_dropout"]
        for layer in model.encoder.layers:
            for half in (layer.feed_forward1, layer.feed_forward2):
                assert [m.p for m in half if isinstance(m, torch.nn.Dropout)] == [rate["ff_dropout"]] * 2
            assert layer.dropout.p == layer.self_attn.dropout.p == rate["attention_dropout"]
            assert layer.conv_module.dropout.p == rate["conv_dropout"]


def test_ctc_after_an_inner_layer_is_ctc_on_its_output():
    model = model_of(intermediate_ctc_stacks="1", dropout=0.0)
    x, lens = features(90, 77)
    y = [[1, 2, 3], [4, 4]]
    loss = model(x, lens, y, reduction="none").intermediate_ctc_loss
    with torch.no_grad():
        inner, inner_lens = model.encoder_embed(x, lens)
        _, _, stacks = model.encoder.forward_stacks(inner, inner_lens)
        log_probs = model.intermediate_ctc.output[0](stacks[0])
    for i, labels in enumerate(y):
        alone = F.ctc_loss(
            log_probs[: inner_lens[i], i],
            torch.tensor(labels),
            inner_lens[i : i + 1],
            torch.tensor([len(labels)]),
            reduction="sum",
        )
        torch.testing.assert_close(loss[i].detach(), alone)


@pytest.mark.parametrize(
    "kernel, causal, left", [(32, False, 15), (5, False, 2), (4, True, 3), (31, True, 30)]
)
def test_convolution_sees_what_it_should(kernel, causal, left):
    torch.manual_seed(0)
    module = ConformerConvolution(3, kernel, causal=causal, dropout=0.0).double().eval()
    x = torch.randn(80, 2, 3, dtype=torch.float64)
    changed = x.clone()
    changed[40] = torch.randn(2, 3, dtype=torch.float64)
    frames = (module(x) - module(changed)).abs().sum(dim=(1, 2)).nonzero().flatten().tolist()
    assert frames == list(range(40 - (kernel - 1 - left), 40 + left + 1))


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_convolution_in_training_is_its_formula(norm):
    torch.manual_seed(0)
    module = (
        ConformerConvolution(4, 4, norm=norm, dropout=0.0, norm_eps=1e-8, batch_norm_decay=0.9)
        .double()
        .train()
    )
    x = torch.randn(9, 3, 4, dtype=torch.float64)
    lens = (9, 6, 2)
    pad_mask = torch.arange(9).unsqueeze(1) >= torch.tensor(lens)
    out = module(x, pad_mask)
    convolved = []
    for n, length in enumerate(lens):
        value, gate = module.in_proj(module.norm_in(x[:length, n])).chunk(2, dim=1)
        rows = F.pad((value * gate.sigmoid()).t(), (1, 2))
        convolved.append(F.conv1d(rows.unsqueeze(0), module.depthwise_conv.weight, groups=4)[0].t())
    valid = torch.cat(convolved)
    if norm == "batch":
        mean, var = valid.mean(dim=0), valid.var(dim=0, unbiased=False)
    else:
        mean, var = valid.mean(dim=1, keepdim=True), valid.var(dim=1, unbiased=False, keepdim=True)
    expected = module.out_proj(F.silu((valid - mean) / (var + 1e-8).sqrt()))
    got = torch.cat([out[:length, n] for n, length in enumerate(lens)])
    torch.testing.assert_close(got, expected)
    if norm == "batch":
        torch.testing.assert_close(module.batch_norm.running_mean, 0.1 * mean)
        torch.testing.assert_close(module.batch_norm.running_var, 0.9 + 0.1 * var)


@pytest.mark.parametrize(
    "order, steps",
    [("mhsa_before_lconv", "facf"), ("lconv_before_mhsa", "fcaf"), ("lconv_before_ff", "cfaf")],
)
def test_order_of_the_modules(order, steps):
    torch.manual_seed(0)
    sizes = {"encoder_dim": 8, "nhead": 2, "cnn_module_kernel": 3, "feedforward_dim": 12}
    layer = ConformerLayer(ConformerOptions(**sizes, layer_order=order)).eval()
    x = y = torch.randn(5, 2, 8)
    pos_emb = relative_positions(5, 5, x)
    halves = iter([layer.feed_forward1, layer.feed_forward2])
    for step in steps:
        if step == "f":
            y = y + 0.5 * next(halves)(y)
        else:
            y = y + (
                layer.conv_module(y) if step == "c" else layer.self_attn(layer.norm_self_attn(y), pos_emb)
            )
    torch.testing.assert_close(layer(x, pos_emb), layer.norm_final(y))


def test_layer_drop_leaves_whole_layers_out():
    model = model_of(
        layer_drop=0.5, dropout=0.0, num_encoder_layers=1, abs_pos_emb=False, conv_norm="layer"
    ).train()
    x = torch.randn(200, 3, 16)
    lens = torch.full((200,), 3)
    out, _ = model.encoder(x, lens)
    model.eval()
    full, _ = model.encoder(x, lens)
    kept, dropped = [torch.isclose(out, other, atol=1e-5).flatten(1).all(dim=1) for other in (full, x)]
    assert (kept ^ dropped).all() and 60 < kept.sum() < 140


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_reach_every_parameter(options):
    model = model_of(use_ctc=True, **{**STREAM, **options, "intermediate_ctc_stacks": "1"}).train()
    x, lens = features(100, 83)
    losses = model(x, lens, [[1, 2, 3], [4, 5]])
    sum(loss for loss in losses if loss is not None).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


@pytest.mark.parametrize("options", VARIANTS)
def test_half_precision(options):
    model = model_of(use_ctc=True, dropout=0.0, **{**STREAM, **options}).train()
    x, lens = features(100, 83)
    full = model.forward_encoder(x, lens)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.forward_encoder(x, lens)[0]
        losses = model(x, lens, [[1, 2, 3], [4, 5]])
    assert (half.float() - full).norm() < 0.05 * full.norm()
    sum(loss for loss in losses if loss is not None).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_scripts_equal_the_model(options):
    model = model_of(**{**STREAM, **options})
    x, lens = features(model.window_frames, model.window_frames - 7)
    for streaming in (False, True):
        scripted = script_model(model, streaming).encoder
        if streaming:
            states, own = scripted.get_init_states(2, torch.device("cpu")), model.get_init_states(2)
            for _ in range(3):
                out, out_lens, states = scripted(x, lens, states)
                expected, expected_lens, own = model.streaming_forward(x, lens, own)
        else:
            model.set_chunk(-1, -1)
            (out, out_lens), (expected, expected_lens) = scripted(x, lens), model.forward_encoder(x, lens)
            model.set_chunk(*(int(options.get(n, STREAM[n])) for n in ("chunk_size", "left_context_frames")))
        assert torch.equal(out_lens, expected_lens)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "size, encoder, layer",
    [
        ("l", 115_112_512, 6_323_776),
        ("m", 30_411_520, 1_589_056),
        ("s", 11_947_984, 506_772),
        ("icefall", 77_163_504, 6_323_200),
        ("hybrid-small", 25_569_008, 2_044_164),
        ("hybrid-large", 75_216_576, 6_099_520),
    ],
)
def test_sizes(size, encoder, layer):
    with torch.device("meta"):
        model = build_model(from_params(OPTIONS, {"model_size": size}), vocab_size=1024)
    count = lambda *modules: sum(p.numel() for m in modules for p in m.parameters())  # noqa: E731
    assert count(model.encoder_embed, model.encoder) == encoder
    assert count(model.encoder.layers[0]) == layer
    if size == "l":
        assert sum(b.numel() for n, b in model.named_buffers() if "running" in n) == 17_408


@pytest.mark.parametrize(
    "size, total", [("s-rnnt", 15_206_480), ("m-rnnt", 33_741_696), ("l-rnnt", 118_606_528)]
)
def test_sizes_with_an_lstm_predictor(size, total):
    with torch.device("meta"):
        model = build_model(from_params(OPTIONS, {"model_size": size, "loss": "full"}), vocab_size=1024)
    assert sum(p.numel() for p in model.parameters()) == total


@pytest.mark.parametrize("size", ["test", "hybrid-small", "hybrid-large"])
def test_other_presets_train(size):
    small = {} if size == "test" else {**SIZES, "num_encoder_layers": 6}
    torch.manual_seed(0)
    model = build_model(from_params(OPTIONS, {**small, "model_size": size, "use_ctc": True}), vocab_size=11)
    x, lens = features(90, 77)
    losses = model(x, lens, [[1, 2, 3], [4]])
    assert (losses.intermediate_ctc_loss is None) == (size != "hybrid-large")
    assert torch.isfinite(losses.pruned_loss) and torch.isfinite(losses.ctc_loss)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"nhead": 3}, "3 heads do not divide a width of 16"),
        ({"encoder_dim": 0}, "--encoder-dim must be at least 1"),
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1"),
        ({"layer_order": "ff_first"}, "unknown --layer-order 'ff_first'; known: mhsa_before_lconv"),
        ({"position": "rope"}, "unknown --position 'rope'; known: xl, key_shift, none"),
        ({"position_clip": 0}, "--position-clip must be at least 1"),
        ({"norm_eps": -1e-5}, "--norm-eps must be above 0"),
        ({"conv_dropout": 1.5}, "--conv-dropout must be at least 0 and below 1"),
        ({"causal": True, "chunk_size": "7"}, "--chunk-size 7 must be a multiple of 2"),
        ({"model_size": "huge"}, "unknown --model-size 'huge'"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build_model(from_params(OPTIONS, {**SIZES, **options}), vocab_size=11)


def test_streaming_needs_a_causal_model_and_whole_chunks():
    with pytest.raises(UserError, match="not causal"):
        model_of().get_init_states()
    with pytest.raises(UserError, match="must be a multiple of --chunk-size"):
        model_of(causal=True, chunk_size="8", left_context_frames="20").get_init_states()
