"""Loading, averaging and refusing checkpoints."""

import argparse
import collections
import pathlib
import pickle
import sys
import types

import pytest
import torch

from asr_core.models import ModelOptions, build_model
from asr_core.models.checkpoint import (
    average_of_range,
    average_state_dicts,
    load_averaged_model,
    load_checkpoint_file,
    model_from_checkpoint,
    select_checkpoints,
)
from asr_core.utils.errors import UserError
from asr_core.utils.options import from_params, record_of

SIZES = dict(
    num_encoder_layers="1,1",
    downsampling_factor="1,2",
    encoder_dim="16,24",
    encoder_unmasked_dim="12",
    feedforward_dim="16",
    num_heads="2",
    query_head_dim="4",
    value_head_dim="4",
    pos_dim=8,
    cnn_module_kernel="5",
    decoder_dim=16,
    joiner_dim=12,
)


def small(seed=0, **options):
    torch.manual_seed(seed)
    return build_model(from_params(ModelOptions, {**SIZES, **options}), vocab_size=9)


def content(model, **options):
    return {
        "model": model.state_dict(),
        **record_of(from_params(ModelOptions, {**SIZES, **options})),
        "vocab_size": 9,
        "feature_dim": 80,
    }


def test_describes_itself(tmp_path):
    model = small(causal=True, use_ctc=True)
    torch.save(content(model, causal=True, use_ctc=True), tmp_path / "epoch-1.pt")
    loaded, params = load_averaged_model(tmp_path, epoch=1, iter=0, avg=1, use_averaged_model=False)
    assert params.encoder_dim == "16,24" and params.vocab_size == 9
    for (name, a), (_, b) in zip(model.state_dict().items(), loaded.state_dict().items()):
        assert torch.equal(a, b), name


def test_plain_state_dict_needs_and_takes_options():
    model = small()
    assert model_from_checkpoint({"model": model.state_dict()}, SIZES).vocab_size == 9
    prefixed = {f"module.{k}": v for k, v in model.state_dict().items()}
    assert model_from_checkpoint({"model": prefixed}, SIZES).vocab_size == 9
    with pytest.raises(
        UserError,
        match=r"encoder_embed.out.weight has shape \(16, 2432\) in the checkpoint but \(192, 2432\)",
    ):
        model_from_checkpoint({"model": model.state_dict()})


def test_first_differing_parameter_is_named():
    model = small()
    ckpt = content(model)
    state = dict(ckpt["model"])
    with pytest.raises(
        UserError, match="lacks encoder.encoders.0.layers.0.conv_module1.depthwise_conv.chunkwise_conv_scale"
    ):
        model_from_checkpoint({"model": state}, {**SIZES, "causal": True})
    with pytest.raises(UserError, match="lacks encoder.downsample_output.bias"):
        model_from_checkpoint(
            {**ckpt, "model": {k: v for k, v in state.items() if k != "encoder.downsample_output.bias"}}
        )
    with pytest.raises(UserError, match="has extra.weight"):
        model_from_checkpoint({**ckpt, "model": {**state, "extra.weight": torch.zeros(1)}})


def test_overrides():
    ckpt = content(small(causal=True), causal=True)
    model = model_from_checkpoint(
        ckpt, {"chunk_size": "16", "left_context_frames": "64", "num_heads": "2,2", "causal": True}
    )
    assert model.encoder.chunk_size == (16,) and model.encoder.left_context_frames == (64,)
    with pytest.raises(UserError, match="--encoder-dim 16,16 contradicts"):
        model_from_checkpoint(ckpt, {"encoder_dim": "16,16"})
    with pytest.raises(UserError, match="--causal False contradicts"):
        model_from_checkpoint(ckpt, {"causal": False})
    with pytest.raises(UserError, match="contradicts"):
        model_from_checkpoint(ckpt, {"model_size": "small"})


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"x")


def test_selection(tmp_path):
    touch(
        tmp_path,
        *[f"epoch-{e}.pt" for e in range(1, 6)],
        *[f"checkpoint-{n}.pt" for n in (100, 200, 1000, 2000)],
    )

    def names(epoch, iteration, avg, averaged):
        paths = select_checkpoints(
            tmp_path, epoch=epoch, iter=iteration, avg=avg, use_averaged_model=averaged
        )
        return [p.name for p in paths]

    assert names(5, 0, 1, False) == ["epoch-5.pt"]
    assert names(5, 0, 3, False) == ["epoch-5.pt", "epoch-4.pt", "epoch-3.pt"]
    assert names(2, 0, 9, False) == ["epoch-2.pt", "epoch-1.pt"]
    assert names(5, 0, 2, True) == ["epoch-5.pt", "epoch-3.pt"]
    assert names(5, 1500, 2, False) == ["checkpoint-1000.pt", "checkpoint-200.pt"]
    assert names(5, 2000, 2, True) == ["checkpoint-2000.pt", "checkpoint-200.pt"]
    bad_epochs = [(3, 0, 3, True), (9, 0, 1, False), (9, 0, 1, True), (5, 0, 0, False)]
    for args in [*bad_epochs, (5, 50, 1, False), (5, 200, 3, False), (5, 200, 2, True)]:
        with pytest.raises(UserError):
            names(*args)


def test_average_of_files():
    a, b = (
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([2.0, 4.0]), "n": torch.tensor(6)},
    )
    mean = average_state_dicts([a, b])
    assert mean["w"].tolist() == [1.5, 3.0] and mean["n"].item() == 4 and mean["w"].dtype == torch.float32


def test_average_of_range_is_the_mean_of_the_snapshots_between():
    period, snapshots = 10, torch.randn(9, 4, dtype=torch.float64)

    def running(step):
        return {
            "model_avg": {"w": snapshots[: step // period].mean(0)},
            "average_period": period,
            "batch_idx_train": step,
        }

    mean = average_of_range(running(34), running(87))["w"]
    torch.testing.assert_close(mean, snapshots[3:8].mean(0).float())
    with pytest.raises(UserError, match="no snapshot"):
        average_of_range(running(34), running(38))
    with pytest.raises(UserError, match="use-averaged-model 0"):
        average_of_range({**running(34), "model_avg": None}, running(87))


def test_averaged_model_from_files(tmp_path):
    models = [small(seed) for seed in range(4)]
    for epoch, count in ((1, 2), (2, 4)):
        states = [m.state_dict() for m in models[:count]]
        average = {k: torch.stack([s[k].double() for s in states]).mean(0) for k in states[0]}
        extra = {"model_avg": average, "average_period": 5, "batch_idx_train": 5 * count + 2}
        torch.save({**content(models[count - 1]), **extra}, tmp_path / f"epoch-{epoch}.pt")
    loaded, _ = load_averaged_model(tmp_path, epoch=2, iter=0, avg=1, use_averaged_model=True)
    plain, _ = load_averaged_model(tmp_path, epoch=2, iter=0, avg=2, use_averaged_model=False)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(
            value, (models[2].state_dict()[name] + models[3].state_dict()[name]) / 2, atol=1e-6, rtol=1e-5
        )
        both = (models[1].state_dict()[name] + models[3].state_dict()[name]) / 2
        torch.testing.assert_close(plain.state_dict()[name], both, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("averaged, use_ema", [(True, False), (False, False), (False, True)])
def test_checkpoints_of_different_tokenizers_are_not_averaged(tmp_path, averaged, use_ema):
    model = small()
    extra = {"model_avg": model.state_dict(), "model_ema": model.state_dict(), "average_period": 5}
    pieces = list("abcdefghi")
    for epoch, tokens in ((1, None), (2, pieces), (3, pieces), (4, [*pieces[:3], "x", *pieces[4:]])):
        saved = {**content(model), **extra, "batch_idx_train": 10 * epoch, "pieces": tokens}
        torch.save(saved, tmp_path / f"epoch-{epoch}.pt")

    def load(epoch, avg):
        choice = dict(use_averaged_model=averaged, use_ema=use_ema)
        return load_averaged_model(tmp_path, epoch=epoch, iter=0, avg=avg, **choice)

    load(3, 1)
    load(3, 2)  # the first does not record its tokens
    message = (
        "cannot average epoch-.*: the checkpoints are of different tokenizers: token 3 is 'x' in epoch-4.pt"
    )
    with pytest.raises(UserError, match=message + " and 'd' in epoch-[23].pt"):
        load(4, 2)


def test_running_averages_of_other_shapes_are_refused():
    ckpt = {"model_avg": {"w": torch.ones(3)}, "average_period": 1, "batch_idx_train": 1}
    other = {**ckpt, "model_avg": {"w": torch.ones(1)}, "batch_idx_train": 2}
    with pytest.raises(UserError, match=r"of different models: w has shapes \(1,\) and \(3,\)"):
        average_of_range(ckpt, other)


def test_checkpoint_with_foreign_objects(tmp_path, monkeypatch):
    """icefall's checkpoints hold paths, namespaces and its own AttributeDict."""
    foreign = types.ModuleType("icefall_like")
    foreign.AttributeDict = type("AttributeDict", (dict,), {"__module__": "icefall_like"})
    monkeypatch.setitem(sys.modules, "icefall_like", foreign)
    model = small()
    ckpt = content(model)
    ckpt.update(
        exp_dir=pathlib.Path("zipformer/exp"),
        env_info=foreign.AttributeDict(torch_version=torch.__version__),
        args=argparse.Namespace(a=1),
        optimizer=collections.OrderedDict(dtype=torch.float16, size=torch.Size([2])),
    )
    for name, legacy in (("zip.pt", True), ("tar.pt", False)):
        torch.save(ckpt, tmp_path / name, _use_new_zipfile_serialization=legacy)
        monkeypatch.delitem(sys.modules, "icefall_like", raising=False)
        loaded = load_checkpoint_file(tmp_path / name)
        monkeypatch.setitem(sys.modules, "icefall_like", foreign)
        assert loaded["exp_dir"] == pathlib.Path("zipformer/exp") and isinstance(loaded["env_info"], dict)
        assert loaded["env_info"]["torch_version"] == torch.__version__
        assert model_from_checkpoint(loaded).vocab_size == 9


class Evil:
    def __reduce__(self):
        return print, ("this must not run",)


def test_code_in_a_checkpoint_is_refused(tmp_path, capsys):
    for legacy in (True, False):
        torch.save({"model": {}, "x": Evil()}, tmp_path / "evil.pt", _use_new_zipfile_serialization=legacy)
        with pytest.raises(UserError, match="builtins.print, which is not loaded for safety"):
            load_checkpoint_file(tmp_path / "evil.pt")
    assert "this must not run" not in capsys.readouterr().out


def test_damaged_files_are_named(tmp_path):
    good = tmp_path / "good.pt"
    torch.save(content(small()), good)
    data = good.read_bytes()
    cases = {
        "cut.pt": data[: len(data) // 2],
        "empty.pt": b"",
        "text.pt": b"hello world",
        "list.pt": pickle.dumps([1, 2]),
    }
    for name, bytes_ in cases.items():
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(UserError, match=name):
            load_checkpoint_file(tmp_path / name)
    with pytest.raises(UserError, match="no such checkpoint"):
        load_checkpoint_file(tmp_path / "none.pt")


def test_a_missing_checkpoint_is_told_with_what_there_is_in_few_words(tmp_path):
    for name in [
        *(f"epoch-{i}" for i in range(1, 13)),
        "checkpoint-200",
        "epoch-12-avg-3",
        "best-valid-loss",
    ]:
        (tmp_path / f"{name}.pt").touch()
    with pytest.raises(UserError) as error:
        select_checkpoints(tmp_path, epoch=30, iter=0, avg=1, use_averaged_model=False)
    there = "epoch-1.pt ... epoch-12.pt (12 files), checkpoint-200.pt, best-valid-loss.pt, epoch-12-avg-3.pt"
    assert str(error.value) == f"no checkpoint {tmp_path}/epoch-30.pt; the folder has {there}"


@pytest.mark.parametrize(
    "epochs, epoch, avg, message",
    [
        (
            3,
            3,
            8,
            "--epoch 3 --avg 8 averages over more epochs than there are: {} has 3 epochs; give at most --avg 2",
        ),
        (
            3,
            3,
            3,
            "--epoch 3 --avg 3 averages over more epochs than there are: {} has 3 epochs; give at most --avg 2",
        ),
        (
            2,
            2,
            9,
            "--epoch 2 --avg 9 averages over more epochs than there are: {} has 2 epochs; give --avg 1",
        ),
        (
            1,
            1,
            1,
            "--epoch 1 --avg 1 averages over more epochs than there are: {} has 1 epoch; "
            "give --epoch 1 --avg 1 --use-averaged-model 0",
        ),
        (0, 3, 8, "--epoch 3 --avg 8 averages over more epochs than there are: {} has 0 epochs; train first"),
    ],
)
def test_more_epochs_to_average_than_there_are(tmp_path, epochs, epoch, avg, message):
    for n in range(1, epochs + 1):
        (tmp_path / f"epoch-{n}.pt").touch()
    with pytest.raises(UserError) as error:
        select_checkpoints(tmp_path, epoch=epoch, iter=0, avg=avg, use_averaged_model=True)
    assert str(error.value) == message.format(tmp_path)
