"""The registry of encoders: an encoder that a program registers, without a file in the library."""

from dataclasses import dataclass

import pytest
import torch

from asr_core.encoders import registry
from asr_core.encoders.chunk_options import ChunkOptions
from asr_core.encoders.chunked import ChunkedEncoder
from asr_core.models.build import build_model
from asr_core.models.options import options_class, options_of
from asr_core.nn.subsampling4 import FrameStacking
from asr_core.utils.errors import UserError
from asr_core.utils.options import option


@dataclass(frozen=True)
class LinearOptions(ChunkOptions):
    """Linear."""

    encoder_dim: int = option(8, "Width.", at_least=1)


class Linear(ChunkedEncoder):
    output_downsampling_factor = 1

    def __init__(self, dim):
        super().__init__(causal=False, chunk_size=(-1,), left_context_frames=(-1,))
        if dim % 2 != 0:
            raise ValueError(f"the width {dim} is odd")
        self.output_dim = dim
        self.map = torch.nn.Linear(dim, dim)

    def forward(self, x, x_lens):
        return self.map(x), x_lens


def build(opts, feature_dim):
    return FrameStacking(feature_dim, opts.encoder_dim, factor=4), Linear(opts.encoder_dim)


@pytest.fixture
def linear(monkeypatch):
    monkeypatch.setitem(registry.ENCODERS, "linear", registry.EncoderSpec(LinearOptions, build))
    yield
    options_class.cache_clear()


def test_a_registered_function_builds_the_encoder(linear):
    opts = options_of({"encoder": "linear", "encoder_dim": 12, "decoder_dim": 8, "joiner_dim": 8})
    model = build_model(opts, vocab_size=5)
    assert isinstance(model.encoder, Linear) and registry.subsampling_factor(opts) == 4
    assert model(torch.randn(1, 40, 80), torch.tensor([40]), [[1, 2]]).pruned_loss.isfinite()


def test_mistakes_in_its_options_are_reported_as_the_users(linear):
    for dim, message in ((0, "--encoder-dim must be at least 1, got 0"), (7, "the width 7 is odd")):
        with pytest.raises(UserError, match=message):
            build_model(options_of({"encoder": "linear", "encoder_dim": dim}), vocab_size=5)
    with pytest.raises(UserError, match="unknown --encoder 'square'; known: zipformer, .*, linear"):
        registry.encoder_spec("square")
