"""Finetuning: whose weights, which of them, in what state training goes on, and what is refused."""

import json

import pytest
import torch
from small_tokenizer import train_bpe
from tiny_program import TINY, Tiny, train

from asr_core.bin import finetune
from asr_core.models.checkpoint import load_averaged_model
from asr_core.nn.scheduled import ScheduledFloat
from asr_core.training.checkpoint import read_whole
from asr_core.training.reporting.writers import read_metrics

DEFAULTS = {
    "max_duration": 5.0,
    "on_the_fly_feats": True,
    "num_workers": 0,
    "bucketing_sampler": False,
    "num_epochs": 2,
}
DEFAULTS.update(log_interval=1, average_period=1, num_threads=1, tensorboard=False, device="cpu")


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A run's folder with its first epoch."""
    folder = tmp_path_factory.mktemp("trained")
    assert train(prepared, folder, "--num-epochs", "1") == 0
    return folder


@pytest.fixture
def tune(prepared, tmp_path):
    """Runs the program in ``tmp_path/exp``; returns its exit status."""

    def run(*argv, exp_dir="exp"):
        fixed = [
            "--manifest-dir",
            prepared,
            "--bpe-model",
            prepared / "bpe.model",
            "--exp-dir",
            tmp_path / exp_dir,
        ]
        with pytest.raises(SystemExit) as ended:
            finetune.main(Tiny, defaults=DEFAULTS, argv=[str(a) for a in (*fixed, *argv)])
        return ended.value.code

    return run


def test_it_starts_from_the_checkpoint_whose_configuration_it_takes(trained, tune, tmp_path):
    start = trained / "epoch-1.pt"
    assert tune("--finetune-ckpt", start, "--base-lr", "1e-12") == 0
    tuned, before = read_whole(tmp_path / "exp/epoch-2.pt"), read_whole(start)
    assert (
        tuned["encoder_dim"] == TINY["encoder_dim"]
        and tuned["causal"] is True
        and tuned["batch_idx_train"] > 0
    )
    for name in ("model", "model_avg"):
        for key, value in tuned[name].items():
            torch.testing.assert_close(value.float(), before["model"][key], atol=1e-5, rtol=1e-5)


def test_help_names_the_program(tune, capsys):
    assert tune("--help") == 0
    assert "Fine-tune a model on tiny." in " ".join(capsys.readouterr().out.split())


def test_schedules_and_rates_of_finetuning(trained, tune, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(ScheduledFloat, "set_batch_count", lambda self, count: counts.append(count))
    assert tune("--finetune-ckpt", trained / "epoch-1.pt", "--num-epochs", "1", "--ref-duration", "2.5") == 0
    first = read_metrics(tmp_path / "exp/metrics.jsonl")[0]
    assert sorted(set(counts))[:3] == [100002.0, 100004.0, 100006.0]
    assert first["lr"] == pytest.approx(0.0045 * (0.5 + 0.5 / 500), rel=1e-6)
    params = json.loads((tmp_path / "exp/params.json").read_text())
    assert (params["base_lr"], params["lr_batches"], params["lr_epochs"]) == (0.0045, 100000.0, 100.0)


def test_an_interrupted_finetuning_continues_exactly(trained, tune, tmp_path):
    common = ("--finetune-ckpt", trained / "epoch-1.pt")
    assert tune(*common, exp_dir="whole") == 0
    assert tune(*common, "--max-steps", "3") == 0
    assert tune(*common) == 0
    assert tune(*common, "--num-epochs", "1", exp_dir="again") == 0
    assert tune("--do-finetune", "0", "--start-epoch", "2", exp_dir="again") == 0
    for other in ("exp", "again"):
        a, b = (read_whole(tmp_path / d / "epoch-2.pt") for d in ("whole", other))
        assert all(torch.equal(a["model_avg"][key], b["model_avg"][key]) for key in a["model_avg"]), other


def test_it_can_start_from_the_exponential_average(trained, tune, tmp_path, capfd):
    state = read_whole(trained / "epoch-1.pt")
    moved = {name: value.double() + 0.25 for name, value in state["model"].items()}
    for validated in (False, True):
        content = {**state, "model_ema": moved, "ema_updates": 3, "valid_with_ema": validated}
        torch.save(content, tmp_path / f"validated-{validated}.pt")
    for validated, given, averaged in (
        (False, "1", True),
        (True, None, True),
        (True, "0", False),
        (False, None, False),
    ):
        exp_dir = f"{validated}-{given}"
        choice = ("--use-ema", given) if given else ()
        start = ("--finetune-ckpt", tmp_path / f"validated-{validated}.pt")
        assert tune(*start, *choice, "--base-lr", "1e-12", "--max-steps", "1", exp_dir=exp_dir) == 0
        tuned = read_whole(tmp_path / exp_dir / "checkpoint-1.pt")["model"]
        expected = moved if averaged else state["model"]
        for name in ("encoder_embed.out.weight", "decoder.embedding.weight", "joiner.output_linear.weight"):
            torch.testing.assert_close(tuned[name], expected[name].float(), atol=1e-5, rtol=1e-5)
    assert tune("--finetune-ckpt", trained / "epoch-1.pt", "--use-ema", "1") == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert f"{trained}/epoch-1.pt: it holds no exponential average (model_ema)" in last


def test_some_modules_alone(trained, tune, tmp_path):
    argv = (
        "--finetune-ckpt",
        trained / "epoch-1.pt",
        "--init-modules",
        "encoder_embed, encoder",
        "--joiner-dim",
        "24",
        "--seed",
        "7",
    )
    assert tune(*argv, "--base-lr", "1e-12", "--num-epochs", "1") == 0
    tuned, before = (read_whole(p)["model"] for p in (tmp_path / "exp/epoch-1.pt", trained / "epoch-1.pt"))
    for key, value in tuned.items():
        if key.startswith(("encoder.", "encoder_embed.")):
            torch.testing.assert_close(value, before[key], atol=1e-5, rtol=1e-5)
    assert tuned["joiner.encoder_proj.weight"].shape[0] == 24
    assert (tuned["decoder.embedding.weight"] - before["decoder.embedding.weight"]).abs().max() > 1e-2


def test_weights_alone_with_their_description(trained, tune, tmp_path):
    torch.save({"model": read_whole(trained / "epoch-1.pt")["model"]}, tmp_path / "pretrained.pt")
    flags = [text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", value)]
    assert tune("--finetune-ckpt", tmp_path / "pretrained.pt", "--max-steps", "1", *flags) == 0
    assert read_whole(tmp_path / "exp/checkpoint-1.pt")["encoder_dim"] == TINY["encoder_dim"]


def test_other_cuts_and_several_validation_sets(trained, tune, prepared, tmp_path, capfd):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sets = (
        "--train-cuts",
        prepared / "tiny_cuts_valid.jsonl.gz",
        "--valid-cuts",
        "first=tiny_cuts_train.jsonl.gz",
    )
    assert (
        tune(
            "--finetune-ckpt",
            trained / "epoch-1.pt",
            "--num-epochs",
            "1",
            "--drop-last",
            "0",
            "--tensorboard",
            "1",
            *sets,
        )
        == 0
    )
    log = capfd.readouterr().err
    assert "in 2 utterances" in log and "validation on first" in log and "validation on tiny" in log
    events = EventAccumulator(str(tmp_path / "exp/tensorboard")).Reload()
    tags = {"train/first_valid_loss", "train/tiny_valid_loss", "train/valid_loss"}
    assert tags <= set(events.Tags()["scalars"])
    first, own, both = (events.Scalars(tag)[0].value for tag in sorted(tags))
    assert min(first, own) < both < max(first, own)


def test_mistakes_end_with_one_line(trained, tune, tmp_path, capfd):
    start = ("--finetune-ckpt", str(trained / "epoch-1.pt"))
    state = read_whole(trained / "epoch-1.pt")
    torch.save({"model": state["model"]}, tmp_path / "alone.pt")
    torch.save(
        {
            **state,
            "model": {k: v for k, v in state["model"].items() if k != "encoder.downsample_output.bias"},
        },
        tmp_path / "less.pt",
    )
    cases = {
        "name the checkpoint with --finetune-ckpt": (),
        "--finetune-ckpt: cannot read nowhere.pt": ("--finetune-ckpt", "nowhere.pt"),
        "a fine-tuning starts at epoch 1": (*start, "--start-epoch", "2"),
        "say where with --start-epoch": ("--do-finetune", "0"),
        "exp/epoch-4.pt": ("--do-finetune", "0", "--start-epoch", "5"),
        "--encoder-dim 32,64 contradicts the checkpoint": (*start, "--encoder-dim", "32,64"),
        "--num-mel-bins 40: ": (*start, "--num-mel-bins", "40"),
        "has shape (32, 2432) in the checkpoint but (192, 2432)": ("--finetune-ckpt", tmp_path / "alone.pt"),
        "lacks encoder.downsample_output.bias": ("--finetune-ckpt", tmp_path / "less.pt"),
        "no module 'enc', ": (*start, "--init-modules", "encoder,enc"),
        "expected NAME=MANIFEST": (*start, "--valid-cuts", "tiny_cuts_valid.jsonl.gz"),
        "nowhere.jsonl.gz": (*start, "--train-cuts", "nowhere.jsonl.gz"),
    }
    for message, argv in cases.items():
        assert tune(*argv) == 1
        last = capfd.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("error: ") and message in last


def test_another_tokenizer_is_refused_unless_only_the_encoder_is_taken(
    trained,
    tune,
    prepared,
    tmp_path,
    capfd,
):
    train_bpe(tmp_path, (prepared / "text").read_text().splitlines(), 14)
    other = (
        "--finetune-ckpt",
        trained / "epoch-1.pt",
        "--bpe-model",
        tmp_path / "bpe.model",
        "--max-steps",
        "1",
    )
    assert tune(*other) == 1
    assert (
        "bpe.model has 14 tokens, but this checkpoint 18" in capfd.readouterr().err.strip().splitlines()[-1]
    )
    assert tune(*other, "--init-modules", "encoder_embed,encoder", exp_dir="other") == 0
    model, _ = load_averaged_model(tmp_path / "other", epoch=1, iter=1, avg=1, use_averaged_model=False)
    assert model.vocab_size == 14


def test_what_is_known_of_the_tokens_that_both_have_is_taken_over(trained, tune, tmp_path, capfd):
    """Another tokenizer of the same size is refused; with ``--match-tokens``, rows follow pieces."""
    old = read_whole(trained / "epoch-1.pt")
    train_bpe(tmp_path, ["NEST THROW FOE", "WORTH TEN HERO SET"] * 20, len(old["pieces"]))
    other = ("--finetune-ckpt", trained / "epoch-1.pt", "--bpe-model", tmp_path / "bpe.model")
    assert tune(*other) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "is not the tokenizer of this checkpoint: its token" in last and "--match-tokens 1" in last
    assert tune(*other, "--init-modules", "decoder") == 1
    assert tune(*other, "--init-modules", "encoder", "--match-tokens", "1") == 1
    assert "knows of tokens" in capfd.readouterr().err.strip().splitlines()[-1]
    options = ("--match-tokens", "1", "--base-lr", "1e-12", "--num-epochs", "1", "--allow-unk", "1")
    assert tune(*other, *options) == 0
    new = read_whole(tmp_path / "exp/epoch-1.pt")
    same = [piece for piece in new["pieces"] if piece in old["pieces"]]
    assert new["pieces"] != old["pieces"] and 3 < len(same) < len(new["pieces"])
    assert f"{len(same)} of the {len(new['pieces'])} tokens of" in capfd.readouterr().err
    for name in ("decoder.embedding.weight", "joiner.output_linear.bias", "simple_lm_proj.weight"):
        for row, piece in enumerate(new["pieces"]):
            if piece in same:
                before = old["model"][name][old["pieces"].index(piece)]
                torch.testing.assert_close(new["model"][name][row], before, atol=1e-5, rtol=1e-5)


def test_a_run_does_not_go_on_with_another_tokenizer(trained, tune, tmp_path, capfd):
    assert tune("--finetune-ckpt", trained / "epoch-1.pt", "--max-steps", "1") == 0
    path = tmp_path / "exp/checkpoint-1.pt"
    content = read_whole(path)
    content["pieces"][4] = "other"
    torch.save(content, path)
    assert tune("--finetune-ckpt", trained / "epoch-1.pt", "--max-steps", "2") == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert "cannot continue: its token 4 is" in last and "the run's 'other'" in last
