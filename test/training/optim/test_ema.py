"""The exponential average of the weights, and where it is used."""

import pytest
import torch
from torch import nn

from asr_core.decoding.options import SearchOptions
from asr_core.decoding.output.file_names import offline_files, streaming_files
from asr_core.decoding.registry import get_method
from asr_core.encoders.chunk_options import Chunk
from asr_core.models.averaging import ema_of
from asr_core.models.build import build_model
from asr_core.models.checkpoint import load_averaged_model
from asr_core.models.checkpoint_options import CheckpointOptions
from asr_core.models.options import ModelOptions
from asr_core.training.optim.ema import ModelEma
from asr_core.utils.errors import UserError
from asr_core.utils.options import Parser, add_options, from_params


def model_with_tied_weights():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


def change(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p))
    model.train()(torch.randn(4, 3))


def three_batches():
    torch.manual_seed(0)
    model = model_with_tied_weights()
    ema = ModelEma(model, decay=0.5)
    for _ in range(3):
        change(model)
        ema.update()
    return model, ema


def test_it_is_the_average_from_zero_with_its_bias_corrected():
    torch.manual_seed(0)
    model = model_with_tied_weights()
    ema = ModelEma(model, decay=0.9)
    plain = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in model.state_dict().items()}
    for n in range(1, 30):
        change(model)
        ema.update()
        for name, value in model.state_dict().items():
            plain[name] = 0.9 * plain[name] + 0.1 * value.double()
        got = ema.state_dict()
        if n == 1:
            assert all(
                torch.equal(got[name], value.to(got[name].dtype))
                for name, value in model.state_dict().items()
            )
        for name in got:
            if got[name].is_floating_point():
                torch.testing.assert_close(got[name], plain[name] / (1 - 0.9**n), rtol=1e-12, atol=1e-14)
    assert (
        got["0.weight"].dtype == torch.float64
        and got["1.num_batches_tracked"] == 29
        and "1.running_var" in got
    )
    ema.restart()
    assert torch.equal(ema.state_dict()["0.weight"], model[0].weight.double())


def test_it_continues_from_a_checkpoint_and_starts_without_one():
    model, ema = three_batches()
    content = {
        name: value.clone() if torch.is_tensor(value) else value for name, value in ema.checkpoint().items()
    }
    again = ModelEma(model, decay=0.5)
    assert again.restore(content) and not ModelEma(model, decay=0.5).restore({"model_ema": None})
    for average in (ema, again):
        average.update()
    assert all(torch.equal(a, b) for a, b in zip(ema.state_dict().values(), again.state_dict().values()))


def test_the_model_shows_it_and_is_itself_again():
    model, ema = three_batches()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), ema.shown():
        assert torch.equal(model[2].weight, ema.state_dict()["0.weight"].float())
        raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_programs_use_it(tmp_path):
    torch.manual_seed(0)
    options = dict(model_size="tiny", use_transducer=False, use_ctc=True)
    weights = build_model(from_params(ModelOptions, options), 9).state_dict()
    for epoch in (1, 2):
        average = {
            name: value.double() + epoch if value.is_floating_point() else value
            for name, value in weights.items()
        }
        content = {
            **options,
            "vocab_size": 9,
            "model": weights,
            "model_ema": average,
            "ema_updates": 5,
            "batch_idx_train": epoch,
        }
        torch.save(content, tmp_path / f"epoch-{epoch}.pt")
    torch.save({**content, "model_ema": None}, tmp_path / "epoch-3.pt")
    name = "ctc_output.1.bias"
    for avg, more in ((1, 2.0), (2, 1.5)):
        model, params = load_averaged_model(
            tmp_path, epoch=2, iter=0, avg=avg, use_averaged_model=False, use_ema=True
        )
        torch.testing.assert_close(model.state_dict()[name], weights[name] + more)
        assert "model_ema" not in params and model.state_dict()[name].dtype == torch.float32
    with pytest.raises(UserError, match="epoch-3.pt: it holds no exponential average .*--ema-decay"):
        load_averaged_model(tmp_path, epoch=3, iter=0, avg=1, use_averaged_model=False, use_ema=True)
    with pytest.raises(UserError, match="--use-ema 1 and --use-averaged-model 1 are different averages"):
        load_averaged_model(tmp_path, epoch=2, iter=0, avg=1, use_averaged_model=True, use_ema=True)
    assert ema_of(content)[name].dtype == torch.float32


def test_the_option_chooses_one_checkpoint_unless_more_are_asked_for():
    def parsed(*argv):
        parser = Parser("p")
        add_options(parser, CheckpointOptions, {"avg": 9})
        given = parser.parse_args(list(argv))
        return given.use_ema, given.use_averaged_model, given.avg

    assert parsed() == (False, True, 9) == parsed("--use-ema", "0")
    assert parsed("--use-ema", "1") == (True, False, 1)
    assert parsed("--use-ema", "1", "--avg", "3") == (True, False, 3)
    assert parsed("--use-averaged-model", "1", "--use-ema", "1") == (True, True, 1)


@pytest.mark.parametrize("use_ema", [False, True])
def test_results_are_named_after_it(use_ema):
    checkpoint = CheckpointOptions(epoch=5, avg=1, use_averaged_model=False, use_ema=use_ema)
    method, opts = get_method("greedy_search"), SearchOptions()
    for files in (
        offline_files(method, opts, checkpoint, context_size=2),
        streaming_files(method, opts, checkpoint, chunk=Chunk(16, 64)),
    ):
        assert (
            ("use-ema" in files.recogs)
            == ("use-ema" in files.errs)
            == ("use-ema" in files.summary)
            == use_ema
        )
