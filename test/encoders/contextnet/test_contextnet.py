"""ContextNet: published sizes, brute-force formulas, padding, the receptive field, streaming."""

import pytest
import torch
from torch.nn import functional as F

from asr_core.encoders.contextnet.encoder import ContextNet, ContextNetBlock
from asr_core.encoders.registry import subsampling_factor
from asr_core.encoders.states import select_states, stack_states
from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

LISTS = dict(channels=(8, 12, 12, 16), num_layers=(1, 2, 3, 1), strides=(1, 2, 2, 1))


def randomise(model):
    """Weights and statistics that make everything count."""
    torch.manual_seed(3)
    for p in model.parameters():
        p.data.normal_(0, 0.6)
    for name, b in model.named_buffers():
        if "running" in name:
            b.uniform_(0.5, 1.5)
    return model.eval()


def encoder(**kwargs):
    torch.manual_seed(0)
    return randomise(ContextNet(10, **{**LISTS, **kwargs}))


def model(**kwargs):
    return build_model(from_params(options_class("contextnet"), kwargs), 20)


def test_sizes_of_the_published_small_model():
    net = model().encoder
    assert sum(p.numel() for p in net.parameters()) == 6_829_256
    assert sum(b.numel() for name, b in net.named_buffers() if "running" in name) == 59_136
    assert [len(block.units) for block in net.blocks] == [2, *[6] * 21, 2] and net.output_dim == 320
    x_lens = torch.tensor([2972, 2976, 1, 8, 9])
    small = model(alpha=0.01).eval()
    with torch.no_grad():
        out, lens = small.forward_encoder(torch.randn(5, 2976, 80), x_lens)
    assert lens.tolist() == [372, 372, 1, 1, 2] and out.shape == (5, 372, small.encoder.output_dim)
    assert small.geometry.subsampling_factor == subsampling_factor(options_class("contextnet")()) == 8
    assert (
        subsampling_factor(
            from_params(
                options_class("contextnet"),
                {"block_strides": "1,2,1,2", "block_layers": "1", "block_channels": "8"},
            )
        )
        == 4
    )


def test_receptive_field():
    """2381 input frames before an output frame are seen, and none after its own; the SE sees more,
    so it is made constant.
    """
    net = randomise(model(alpha=0.01).encoder)
    for block in net.blocks:
        block.se.excite.weight.data.zero_()
    for p in net.double().parameters():
        p.data.abs_()  # so that nothing cancels
    x = torch.ones(1, 2800, 80, dtype=torch.float64, requires_grad=True)
    out, _ = net(x, torch.tensor([2800]))
    out[0, 320].sum().backward()
    seen = x.grad.abs().sum(-1)[0].nonzero().squeeze(1)
    assert int(seen.max()) == 320 * 8 and 320 * 8 - int(seen.min()) + 1 == 2381


@pytest.mark.parametrize("padding", ["causal", "same"])
@pytest.mark.parametrize("causal_se", [False, True])
def test_a_block_by_its_formula(padding, causal_se):
    block = ContextNetBlock(
        6,
        8,
        num_layers=3,
        stride=2,
        kernel_size=5,
        residual_kernel=5,
        se_ratio=2,
        causal_conv=padding == "causal",
        causal_se=causal_se,
    )
    randomise(block)
    x = torch.randn(11, 1, 6)

    def unit(h, conv):
        h = h[:, 0].t()[None]  # (1, C, T)
        h = F.conv1d(
            F.pad(h, (4, 0) if padding == "causal" else (2, 2)),
            conv.depthwise_conv.weight,
            stride=conv.stride,
            groups=h.size(1),
        )
        h = F.conv1d(h, conv.pointwise.weight[:, :, None], conv.pointwise.bias)
        n = conv.norm
        return F.batch_norm(h, n.running_mean, n.running_var, n.weight, n.bias, False, 0, 1e-3)[0].t()[
            :, None
        ]

    h = x
    for conv in block.units:
        h = F.silu(unit(h, conv))
    rows = []
    for t in range(len(h)):
        mean = (h[: t + 1] if causal_se else h).mean(0)
        se = block.se
        rows.append(
            h[t]
            * torch.sigmoid(
                se.excite.weight @ F.silu(se.squeeze.weight @ mean[0] + se.squeeze.bias) + se.excite.bias
            )
        )
    want = F.silu(torch.stack(rows) + unit(x, block.residual))
    found, mask = block(x, torch.zeros(11, 1, dtype=torch.bool))
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)
    assert found.shape == (6, 1, 8) and mask.shape == (6, 1)


@pytest.mark.parametrize(
    "kwargs",
    [dict(), dict(padding="same"), dict(causal=True), dict(residual_kernel=1, kernel_size=7, padding="same")],
)
def test_padding_changes_nothing(kwargs):
    net = encoder(**kwargs)
    x = torch.randn(3, 30, 10)
    lens = torch.tensor([30, 17, 4])
    for row, n in enumerate(lens.tolist()):
        x[row, n:] = 1e4
    with torch.no_grad():
        together, out_lens = net(x, lens)
        for row, n in enumerate(lens.tolist()):
            alone, alone_lens = net(x[row : row + 1, :n], lens[row : row + 1])
            assert alone_lens[0] == out_lens[row] == (n + 3) // 4
            torch.testing.assert_close(together[row, : out_lens[row]], alone[0], atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing_in_training():
    """Statistics and gradients of a batch with padding do not depend on how much of it there is."""
    found = []
    for extra in (0, 12):
        net = encoder().train()
        torch.manual_seed(1)
        x = F.pad(torch.randn(2, 24, 10), (0, 0, 0, extra), value=50.0)
        out, lens = net(x, torch.tensor([24, 13]))
        (out[0, : lens[0]].sum() + out[1, : lens[1]].square().sum()).backward()
        found.append([p.grad for p in net.parameters()] + [b for b in net.buffers()])
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_chunks_of_streams_are_the_whole_utterance():
    net = encoder(causal=True, chunk_size=(8,))
    x = torch.randn(2, 48, 10)
    dims = net.state_batch_dims()
    with torch.no_grad():
        whole, _ = net(x, torch.tensor([48, 48]))
        streams = [net.get_init_states() for _ in range(2)]
        outs = []
        for t in range(0, 48, 16):
            out, lens, states = net.streaming_forward(
                x[:, t : t + 16], torch.tensor([16, 16]), stack_states(streams, dims)
            )
            streams = [select_states(states, dims, torch.tensor([n])) for n in range(len(streams))]
            assert lens.tolist() == [4, 4]
            outs.append(out)
        scripted = torch.jit.script(net)
        torch.testing.assert_close(scripted(x, torch.tensor([48, 48]))[0], whole)
    torch.testing.assert_close(torch.cat(outs, 1), whole, atol=1e-5, rtol=1e-4)
    assert [int(s[-1]) for s in streams] == [48, 48]


def test_not_causal_is_not_streamable():
    """Causal padding alone does not make it so: the squeeze-and-excitation sees the whole
    utterance.
    """
    net = encoder()
    x = torch.randn(1, 32, 10)
    with torch.no_grad():
        assert not torch.allclose(
            net(x, torch.tensor([32]))[0][:, :4], net(x[:, :16], torch.tensor([16]))[0], atol=1e-4
        )
        net = encoder(causal=True)
        torch.testing.assert_close(
            net(x, torch.tensor([32]))[0][:, :4], net(x[:, :16], torch.tensor([16]))[0]
        )
    with pytest.raises(UserError, match="not causal"):
        encoder().get_init_states()
    with pytest.raises(UserError, match="one chunk size"):
        encoder(causal=True).get_init_states()


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(block_layers="1,2"), "block-layers has 2 entries, but there are 23 blocks"),
        (dict(block_strides="1"), "product of --block-strides must be 2, 4, 8 or 16, not 1"),
        (dict(causal=True, padding="same"), "unless it is to stream"),
        (dict(causal=True, chunk_size="6"), "--chunk-size 6 must be a multiple of 4"),
        (dict(kernel_size=4), "kernel odd"),
        (dict(residual_kernel=3), "kernel is 1 or 5"),
        (dict(alpha=0.001), "must be positive"),
        (dict(intermediate_ctc_stacks="2"), "no inner outputs"),
    ],
)
def test_options_that_do_not_fit(wrong, message):
    with pytest.raises(UserError, match=message):
        model(**wrong)


def test_alpha_multiplies_all_widths():
    widths = [block.se.excite.out_features for block in model(alpha=0.25).encoder.blocks]
    assert widths == [64] * 11 + [128] * 11 + [160]
