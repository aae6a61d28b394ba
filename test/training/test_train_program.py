"""The training program on a real, tiny Zipformer: its files, its refusals, and a resumed run that
equals an undisturbed one.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import fake_run
import pytest
import torch
from tiny_program import Tiny, ZipformerRecipe, train

from asr_core.bin.train import main, parse
from asr_core.training.checkpoint import read_whole
from asr_core.training.reporting.writers import read_metrics


def test_a_zipformer_run_continues_exactly(tmp_path):
    torch.set_num_threads(1)
    common = dict(num_epochs=1, save_every_n=4, valid_interval=6, base_lr=0.03)
    assert fake_run.run(tmp_path / "whole", recipe=ZipformerRecipe, **common) == 0
    for stop in (3, 7, 12):
        assert fake_run.run(tmp_path / "parts", recipe=ZipformerRecipe, max_steps=stop, **common) == 0
    assert fake_run.run(tmp_path / "parts", recipe=ZipformerRecipe, **common) == 0
    whole, parts = (
        [
            {k: v for k, v in r.items() if k not in ("rate", "time")}
            for r in read_metrics(tmp_path / d / "metrics.jsonl")
        ]
        for d in ("whole", "parts")
    )
    assert parts == whole
    assert whole[-2]["ctc_loss"] > 0
    a, b = (read_whole(tmp_path / d / "epoch-1.pt")["model_avg"] for d in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_program_trains_and_its_checkpoints_describe_themselves(prepared, tmp_path, capfd):
    from asr_core.models.checkpoint import load_averaged_model

    assert train(prepared, tmp_path) == 0
    out = capfd.readouterr().err
    assert "1 x no text (cut0)" in out and "Number of model parameters" in out
    assert json.loads((tmp_path / "params.json").read_text())["encoder_dim"] == "32,48"
    for name in (
        "epoch-1.pt",
        "epoch-2.pt",
        "best-valid-loss.pt",
        "bpe.model",
        "tokens.txt",
        "metrics.jsonl",
    ):
        assert (tmp_path / name).is_file(), name
    assert len(list((tmp_path / "log").iterdir())) == 1
    model, params = load_averaged_model(tmp_path, epoch=2, iter=0, avg=1, use_averaged_model=True)
    assert params.encoder_dim == "32,48" and not any(torch.isnan(p).any() for p in model.parameters())
    assert train(prepared, tmp_path) == 0 and "This run is finished" in capfd.readouterr().err
    assert train(prepared, tmp_path, "--encoder-dim", "32,64", "--num-epochs", "3") == 1
    assert "encoder_dim was 32,48, is 32,64" in capfd.readouterr().err.splitlines()[-1]


def test_it_trains_with_adam_noise_and_an_exponential_average(prepared, tmp_path, capfd):
    from asr_core.models.checkpoint import load_averaged_model
    from asr_core.training.checkpoint import read_whole

    argv = "--optimizer adam --base-lr 0.002 --schedule noam --warmup-batches 4 --l2 1e-6 --clip-grad-norm 5 --ema-decay 0.9"
    noise = "--predictor lstm --predictor-noise 0.075 --joiner-noise 0.075 --predictor-noise-start 0"
    assert train(prepared, tmp_path, "--num-epochs", "1", *argv.split(), *noise.split()) == 0
    assert "adam: --l2 1e-06 holds for" in capfd.readouterr().err
    content = read_whole(tmp_path / "epoch-1.pt")
    model, params = load_averaged_model(
        tmp_path, epoch=1, iter=0, avg=1, use_averaged_model=False, use_ema=True
    )
    assert params.optim == "adam" and json.loads((tmp_path / "params.json").read_text())["schedule"] == "noam"
    for name, value in model.state_dict().items():
        assert torch.equal(value, content["model_ema"][name].to(value.dtype))
    assert train(prepared, tmp_path, "--num-epochs", "2") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert (
        "epoch-1.pt is of a run with --optimizer adam, which --optimizer scaled_adam cannot continue" in last
    )


@pytest.mark.parametrize(
    "argv, status, message",
    [
        (["--num-epoch-s", "3"], 2, "did you mean --num-epochs?"),
        (["--bpe-model", "nowhere.model"], 1, "error: --bpe-model: cannot read nowhere.model: No such file"),
        (["--manifest-dir", "nowhere"], 1, "error: no nowhere/tiny_cuts_train.jsonl.gz"),
        (["--world-size", "0"], 1, "error: --world-size must be at least 1 and at most 1024, got 0"),
        (["--num-workers", "-1"], 1, "error: --num-workers must be at least 0 and at most 1024, got -1"),
        (["--max-duration", "0"], 1, "error: --max-duration must be above 0, got 0"),
        (["--use-fp16", "1"], 1, "error: --use-fp16 1: mixed precision needs a CUDA device"),
        (
            ["--input-strategy", "AudioSamples", "--on-the-fly-feats", "0"],
            1,
            "error: --input-strategy AudioSamples",
        ),
    ],
)
def test_mistakes_end_with_one_line(prepared, tmp_path, capfd, argv, status, message):
    assert train(prepared, tmp_path / "exp", *argv) == status
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert message in last


def test_help_needs_neither_torch_nor_lhotse():
    root = Path(__file__).parents[2]
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from asr_core.bin.train import main\nfrom asr_core.data.corpus import Corpus\n"
        "try: main(Corpus, argv=['--help'])\n"
        "finally: assert not {'torch', 'lhotse', 'numba', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for flag in ("--use-fp16", "--num-encoder-layers", "--max-duration", "--base-lr", "--save-every-n"):
        assert flag in done.stdout


CONFIGURATIONS = {
    "conformer-m": {"encoder": "conformer", "model_size": "m"},
    "conformer-s": {"encoder": "conformer", "model_size": "s", "nhead": 8},
    "lstm": {"encoder": "lstm", "decoder_dim": 96},
}


def defaults_in_help(capsys, *argv, **kwargs):
    """The defaults that ``--help`` shows, by option."""
    with pytest.raises(SystemExit) as ended:
        main(Tiny, argv=[*argv, "--help"], **kwargs)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    entries = re.split(r"\n  (?=--)", text)[1:]
    found = {}
    for entry in entries:
        default = re.search(r"\(default: (.*)\)$", " ".join(entry.split("\n\n")[0].split()))
        found[entry.split()[0]] = default[1] if default else None
    return found


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_help_shows_the_defaults_of_the_chosen_configuration(name, capsys):
    shown = defaults_in_help(capsys, "--model", name, models=CONFIGURATIONS)
    params = parse(Tiny, argv=["--model", name], models=CONFIGURATIONS)
    assert params["encoder"] == CONFIGURATIONS[name]["encoder"]
    compared = 0
    for option, default in shown.items():
        value = params.get(option[2:].replace("-", "_"))
        recorded_otherwise = ("--model", "--model-size")  # as "configuration", and as its values
        if default is not None and option not in recorded_otherwise:
            assert str(value) == default.replace(" ", ""), option  # long ones are wrapped
            compared += 1
    assert compared > 100
    widths = {"conformer-m": "256", "conformer-s": "144", "lstm": "512"}
    assert shown["--encoder-dim"] == widths[name]
    assert shown["--decoder-dim"] == ("96" if name == "lstm" else "512")


def test_help_follows_options_given_beside_it(capsys):
    shown = defaults_in_help(capsys, "--model-size", "l", encoders=["conformer", "lstm"])
    assert (shown["--encoder"], shown["--encoder-dim"]) == ("conformer", "512")
    shown = defaults_in_help(capsys, "--encoder", "lstm", encoders=["conformer", "lstm"])
    assert shown["--encoder"] == "lstm" and "--nhead" not in shown


def test_encoders_that_the_recipe_does_not_offer_are_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        parse(Tiny, argv=["--encoder", "contextnet"], encoders=["conformer", "lstm"])
    assert ended.value.code == 2
    assert "'contextnet' (choose from" in capsys.readouterr().err


def test_defaults_of_options_that_do_not_exist_are_a_bug():
    with pytest.raises(ValueError, match="no_such_option"):
        main(Tiny, defaults={"no_such_option": 1}, argv=[])
