"""The LSTM encoder: streaming is the whole utterance, padding changes nothing, published size,
options.
"""

import dataclasses

import pytest
import torch

from asr_core.encoders.lstm.encoder import LstmEncoder
from asr_core.encoders.lstm.options import LstmOptions
from asr_core.encoders.states import select_states, stack_states
from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

TINY = dict(
    num_encoder_layers=2, encoder_dim=12, rnn_hidden_size=16, dim_feedforward=20, decoder_dim=8, joiner_dim=8
)


SIZES = LstmOptions(
    num_encoder_layers=3, encoder_dim=12, rnn_hidden_size=16, dim_feedforward=20,
    chunk_size=(4,), left_context_frames=(-1,),
)  # fmt: skip


def encoder(**changes):
    torch.manual_seed(0)
    return LstmEncoder(dataclasses.replace(SIZES, **changes)).eval()


@pytest.mark.parametrize("hidden_dim", [16, 12])  # the latter without projection
def test_chunks_of_streams_are_the_whole_utterance(hidden_dim):
    net = encoder(rnn_hidden_size=hidden_dim)
    x = torch.randn(2, 15, 12)
    dims = net.state_batch_dims()
    with torch.no_grad():
        whole, lens = net(x, torch.tensor([15, 9]))
        streams, outs = [net.get_init_states() for _ in range(2)], []
        for t in range(0, 15, 5):
            out, _, states = net.streaming_forward(
                x[:, t : t + 5], torch.tensor([5, 5]), stack_states(streams, dims)
            )
            streams = [select_states(states, dims, torch.tensor([n])) for n in range(len(streams))]
            outs.append(out)
        torch.testing.assert_close(torch.cat(outs, 1), whole, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(net(x[1:, :9], lens[1:])[0], whole[1:, :9], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.jit.script(net)(x, lens)[0], whole, atol=1e-5, rtol=1e-5)
    assert lens.tolist() == [15, 9] and [int(s[-1]) for s in streams] == [15, 15]


def test_a_layer_by_its_formula():
    net = encoder(num_encoder_layers=1)
    layer = net.layers[0]
    x = torch.randn(2, 7, 12)
    with torch.no_grad():
        y = x + layer.lstm(x, torch.zeros(2, 12), torch.zeros(2, 16))[0]
        inner = layer.feed_forward_in(y)
        inner = torch.nn.functional.softplus(inner - 1) - 0.08 * inner - 0.313261687
        y = y + inner @ layer.feed_forward_out.weight.t() + layer.feed_forward_out.bias
        want = y / (y - layer.norm.bias).square().mean(-1, keepdim=True).sqrt() * layer.norm.log_scale.exp()
        torch.testing.assert_close(net(x, torch.tensor([7, 7]))[0], want, atol=1e-5, rtol=1e-5)


def test_size_by_default():
    """icefall's lstm_transducer_stateless has 84,689,496 parameters; the norms and heads differ a
    little.
    """
    model = build_model(options_class("lstm")(), 500)
    layer = 4 * 1024 * (512 + 512 + 1) + 512 * 1024 + 2 * 512 * 2048 + 2048 + 512 + 513
    assert sum(p.numel() for p in model.encoder.parameters()) == 12 * layer
    assert abs(sum(p.numel() for p in model.parameters()) / 84_689_496 - 1) < 0.001


def test_intermediate_ctc_hears_the_layers():
    model = build_model(
        from_params(options_class("lstm"), {**TINY, "use_ctc": True, "intermediate_ctc_stacks": "1"}), 9
    )
    losses = model(torch.randn(2, 80, 80), torch.tensor([80, 60]), [[3, 4], [5]])
    losses.intermediate_ctc_loss.backward()
    assert (
        model.encoder.layers[0].lstm.weight_ih.grad is not None
        and model.encoder.layers[1].lstm.weight_ih.grad is None
    )


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(causal=False), "sees only the past"),
        (dict(chunk_size="15"), "must be a multiple of 2"),
        (dict(num_encoder_layers=0), "must be at least 1"),
        (dict(dropout=1.0), "dropout"),
    ],
)
def test_options_that_do_not_fit(wrong, message):
    with pytest.raises(UserError, match=message):
        build_model(from_params(options_class("lstm"), {**TINY, **wrong}), 9)
