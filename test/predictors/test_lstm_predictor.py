"""The LSTM layer against its formulas and torch's, the predictor's states, noise and sizes."""

import pytest
import torch
from torch import nn

from asr_core.models.build import build_model
from asr_core.models.options import ModelOptions
from asr_core.nn.lstm import LstmLayer
from asr_core.predictors import LstmPredictor
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params

KINDS = [
    {},
    dict(hidden_dim=11, num_layers=2),
    dict(layer_norm=True, embedding_dim=4),
    dict(cell_clip=0.1, hidden_dim=9, num_layers=2),
]


def predictor(**kwargs):
    torch.manual_seed(0)
    p = LstmPredictor(7, 6, 0, **kwargs)
    for param in p.parameters():
        param.data.normal_(0, 0.7)
    return p


@pytest.mark.parametrize("proj", [0, 3])
@pytest.mark.parametrize("clip", [0.0, 1e6])  # the limit is never met
def test_the_layer_is_torchs_lstm(proj, clip):
    torch.manual_seed(0)
    layer, theirs = (
        LstmLayer(5, 8, proj, clip).double(),
        nn.LSTM(5, 8, batch_first=True, proj_size=proj).double(),
    )
    layer.bias.data.normal_()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(layer.weight_ih)
        theirs.weight_hh_l0.copy_(layer.weight_hh)
        theirs.bias_ih_l0.copy_(layer.bias)
        theirs.bias_hh_l0.zero_()
        if proj:
            theirs.weight_hr_l0.copy_(layer.weight_hr)
    x, h, c = torch.randn(3, 6, 5).double(), torch.randn(3, proj or 8).double(), torch.randn(3, 8).double()
    y, (h1, c1) = theirs(x, (h[None], c[None]))
    for mine, want in zip(layer(x, h, c), (y, h1[0], c1[0])):
        torch.testing.assert_close(mine, want)


def test_clipped_cells_by_the_formula():
    torch.manual_seed(0)
    layer = LstmLayer(4, 5, cell_clip=0.3).double()
    layer.weight_ih.data.mul_(8)
    x, h, c = torch.randn(2, 7, 4).double(), torch.zeros(2, 5).double(), torch.zeros(2, 5).double()
    found, _, last = layer(x, h, c)
    clipped = 0
    for t in range(7):
        i, f, g, o = (x[:, t] @ layer.weight_ih.T + h @ layer.weight_hh.T + layer.bias).split(5, dim=1)
        free = c * torch.sigmoid(f) + torch.tanh(g) * torch.sigmoid(i)
        c = torch.minimum(torch.maximum(free, torch.tensor(-0.3)), torch.tensor(0.3)).double()
        clipped += int((free.abs() > 0.3).sum())
        h = torch.sigmoid(o) * torch.tanh(c)
        torch.testing.assert_close(found[:, t], h)
    torch.testing.assert_close(last, c)
    assert clipped > 5
    free = LstmLayer(4, 5, cell_clip=9.0).double()
    args = (torch.randn(2, 3, 4).double().requires_grad_(), free.weight_hh)
    start = (torch.zeros(2, 5).double(), torch.zeros(2, 5).double())
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(free, {"weight_hh": w}, (x, *start))[0], args
    )


@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_and_scripted_are_the_sequence(kind):
    p = predictor(**kind).eval()
    y = torch.randint(0, 7, (4, 6))
    whole = p(y)
    h, c = p.get_init_states(4)
    for t in range(6):
        out, h, c = p.step(y[:, t], h, c)
        torch.testing.assert_close(out, whole[:, t])
    scripted = torch.jit.script(p)
    torch.testing.assert_close(scripted(y), whole)
    h, c = scripted.get_init_states(4)
    torch.testing.assert_close(scripted.step(y[:, 0], h, c)[0], whole[:, 0])
    torch.testing.assert_close(p(y[:, :3]), whole[:, :3])  # what comes later changes nothing


def test_sizes_of_published_systems():
    count = lambda *args, **kwargs: sum(p.numel() for p in LstmPredictor(*args, **kwargs).parameters())  # noqa: E731
    assert count(1000, 512, 0, embedding_dim=640, layer_norm=True) == 3_002_368  # a ContextNet transducer's
    assert (
        count(1024, 640, 0, embedding_dim=128, cell_clip=10.0) == 131_072 + 1_968_640
    )  # Conformer-L RNN-T's, embedding and LSTM


def test_options_build_it():
    sizes = dict(
        model_size="tiny", decoder_dim=30, predictor="lstm", predictor_layers=2, predictor_hidden_dim=10
    )
    model = build_model(
        from_params(ModelOptions, {**sizes, "predictor_embedding_dim": 9, "predictor_cell_clip": 4.0}), 12
    )
    decoder = model.decoder
    assert isinstance(decoder, LstmPredictor) and decoder.num_layers == 2
    assert (
        decoder.embedding.weight.shape == (12, 9)
        and decoder.layers[1].weight_hr.shape == (30, 10)
        and decoder.layers[0].cell_clip == 4
    )
    losses = model(torch.randn(2, 60, 80), torch.tensor([60, 50]), [[3, 4, 5], [6]])
    (losses.simple_loss + losses.pruned_loss).backward()
    assert all(p.grad is not None for p in decoder.parameters())
    for wrong in (
        dict(predictor_layers=0),
        dict(predictor_cell_clip=-1.0),
        dict(predictor="gru"),
        dict(predictor_embedding_dim=-1),
        dict(predictor_noise=-1.0),
    ):
        with pytest.raises(UserError, match="predictor"):
            build_model(from_params(ModelOptions, {**sizes, **wrong}), 12)
