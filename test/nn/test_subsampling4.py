"""Front ends with a quarter or a third of the rate: lengths, padding, streaming, and the number of
their parameters.
"""

import pytest
import torch
from torch import nn

from asr_core.nn.subsampling4 import Conv2dSubsampling4, Conv2dSubsamplingNarrow, FrameStacking, VggStacking

MAKE = {
    "conv": lambda dim: Conv2dSubsampling4(dim, 6, channels=5, dropout=0.0),
    "narrow": lambda dim: Conv2dSubsamplingNarrow(dim, 6, nn.SiLU(), dropout=0.0),
    "stack": lambda dim: FrameStacking(dim, 6, dropout=0.0),
    "vgg-stack": lambda dim: VggStacking(dim, 6, dropout=0.0),
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("dim", [11, 16])
def test_padding_changes_nothing(name, dim):
    torch.manual_seed(0)
    model = MAKE[name](dim).double()
    for length in range(9, 25):
        x = torch.randn(1, length, dim, dtype=torch.float64)
        alone, lens = model(x, torch.tensor([length]))
        assert lens.tolist() == [alone.size(1)]
        wide = torch.cat([x, torch.randn(1, 13, dim, dtype=torch.float64)], dim=1).repeat(2, 1, 1)
        together, lens = model(wide, torch.tensor([length, length + 13]))
        assert lens[0] == alone.size(1) and lens[1] == together.size(1)
        torch.testing.assert_close(together[:1, : lens[0]], alone)


@pytest.mark.parametrize("name", MAKE)
def test_chunks_equal_the_whole(name):
    torch.manual_seed(0)
    model = MAKE[name](16).double()
    chunk, count = 4 * model.subsampling_factor, 3
    x = torch.randn(2, chunk * count + model.look_ahead, 16, dtype=torch.float64)
    length = chunk * count + model.trimmed_frames
    whole, lens = model(x[:, :length], torch.full((2,), length))
    assert lens.tolist() == [4 * count] * 2
    state, outs = model.get_init_states(2).double(), []
    for i in range(count):
        window = x[:, i * chunk : (i + 1) * chunk + model.look_ahead]
        out, lens, state = model.streaming_forward(window, torch.full((2,), window.size(1)), state)
        assert lens.tolist() == [4, 4] and state.shape == model.get_init_states(2).shape
        outs.append(out)
    torch.testing.assert_close(torch.cat(outs, dim=1), whole)


def test_frames_of_the_published_lengths():
    model = FrameStacking(2, 4), Conv2dSubsampling4(2, 4, channels=2)
    for length, quarter in ((3599, 900), (2999, 750), (99, 25)):
        assert model[1](torch.zeros(1, length, 2), torch.tensor([length]))[0].size(1) == quarter
    assert [model[0](torch.zeros(1, n, 2), torch.tensor([n]))[1].item() for n in (6, 7, 8, 9)] == [2, 3, 3, 3]


@pytest.mark.parametrize("length", range(1, 10))
def test_stacking_keeps_every_frame_once(length):
    model = FrameStacking(2, 6, dropout=0.0)
    with torch.no_grad():
        model.out.weight.copy_(torch.eye(6))
        model.out.bias.zero_()
    x = torch.randn(2, length + 2, 2)
    out, lens = model(x, torch.tensor([length, length + 2]))
    assert lens.tolist() == [-(-length // 3), -(-(length + 2) // 3)] and out.size(1) == lens[1]
    back = out.reshape(2, -1, 2)  # three frames again of each: what was stacked, then zeros
    for row, size in zip(range(2), (length, length + 2)):
        assert torch.equal(back[row, :size], x[row, :size]) and not back[row, size:].any()


def test_parameters():
    with torch.device("meta"):
        model = Conv2dSubsampling4(80, 512)
    convolutions = sum(p.numel() for m in (model.conv1, model.conv2) for p in m.parameters())
    assert convolutions == 2_364_928
    assert sum(p.numel() for p in model.out.parameters()) == 5_243_392


def test_too_few_features_are_refused():
    with pytest.raises(ValueError, match="at least 7 features"):
        Conv2dSubsamplingNarrow(6, 8, nn.SiLU())
    with pytest.raises(ValueError, match="at least 4 features"):
        VggStacking(3, 8)


def test_what_a_frame_of_the_stacked_convolutions_sees():
    model = VggStacking(8, 4, dropout=0.0).double().eval()
    x = torch.randn(1, 36, 8, dtype=torch.float64)
    before, _ = model(x, torch.tensor([36]))
    changed = x.clone()
    changed[:, 20] += 5.0
    moved = (model(changed, torch.tensor([36]))[0] != before).any(dim=2)[0].nonzero().flatten().tolist()
    assert before.size(1) == 10 and moved == [i for i in range(10) if 3 * i <= 20 <= 3 * i + 8]
