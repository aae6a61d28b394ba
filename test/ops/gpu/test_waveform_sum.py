"""The kernel that sums waveforms, in Triton's interpreter, against single additions in float64."""

import pytest
import torch

from asr_core.ops import waveform_sum


@pytest.mark.parametrize("width", [1, 1024, 1500])
def test_waveforms_at_their_places(width, monkeypatch):
    torch.manual_seed(0)
    sizes = torch.tensor([width, max(1, width - 300), 1])
    table = torch.tensor([[3, 700, 0], [10, 900, 1100], [200, 300, -5], [0, 1, 0], [600, 2000, 20]])
    layers = torch.tensor([[0, 1, 4], [2, 0, -1], [3, -1, -1]])
    flat, gains = torch.randn(3000), torch.rand(5) + 0.5
    expected = torch.zeros(3, width, dtype=torch.float64)
    for row, (members, size) in enumerate(zip(layers.tolist(), sizes.tolist())):
        for m in members:
            spot, count, start = table[m].tolist()
            for i in range(count) if m >= 0 else ():
                if 0 <= start + i < size:
                    expected[row, start + i] += gains[m].double() * flat[spot + i].double()
    args = (flat, gains, table, layers, sizes, width)
    plain = waveform_sum.sum_of_waveforms_plain(*args)
    with monkeypatch.context() as patch:
        patch.setattr(waveform_sum, "sum_of_waveforms_plain", None)
        got = waveform_sum.sum_of_waveforms(*args)
    for x in (plain, got):
        torch.testing.assert_close(x.double(), expected, rtol=1e-5, atol=1e-6)


def test_no_utterance():
    none = torch.zeros(0, dtype=torch.int64)
    out = waveform_sum.sum_of_waveforms(
        torch.zeros(0), torch.zeros(0), none.view(0, 3), none.view(0, 2), none, 0
    )
    assert out.shape == (0, 0)
