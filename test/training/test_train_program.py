"""The training program on a real, tiny Zipformer: its files, its refusals, and a resumed run that equals an undisturbed one."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_run
import numpy as np
import pytest
import torch

from asr_core.bin.train import main
from asr_core.data.corpus import Corpus
from asr_core.models.options import ModelOptions
from asr_core.training.checkpoint import read_whole
from asr_core.training.metrics import read_metrics
from asr_core.utils.options import defaults_of

TINY = {
    "num_encoder_layers": "1,1",
    "downsampling_factor": "1,2",
    "encoder_dim": "32,48",
    "encoder_unmasked_dim": "24,32",
    "feedforward_dim": "64",
    "num_heads": "2",
    "query_head_dim": "8",
    "cnn_module_kernel": "15,7",
    "decoder_dim": 32,
    "joiner_dim": 32,
    "causal": True,
}


class Tiny(Corpus):
    name = "tiny"


class ZipformerRecipe(fake_run.FakeRecipe):
    """The real model and loss on made-up features."""

    tokenizer = SimpleNamespace(encode=lambda texts: [[int(t), 1, 2] for t in texts])

    def build_model(self):
        from asr_core.models import build_model

        return build_model(
            ModelOptions(**{**defaults_of(ModelOptions), **TINY, "use_ctc": True}), vocab_size=fake_run.VOCAB
        )

    def build_datamodule(self):
        data = super().build_datamodule()
        small = data._batch

        def batch(seed, index):
            out = small(seed, index)
            out["inputs"] = out["inputs"].repeat(1, 4, 10)
            out["supervisions"]["num_frames"] *= 4
            return out

        data._batch = batch
        return data


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


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with a tokenizer and cuts of noise."""
    import sentencepiece
    import soundfile
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    folder = tmp_path_factory.mktemp("prepared")
    words = ["ONE", "TWO", "THREE"]
    rng = np.random.default_rng(0)
    cuts = []
    for i in range(14):
        path = folder / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(16000 + 800 * i), 16000)
        recording = Recording.from_file(path)
        text = " ".join(rng.choice(words, 3)) if i else ""
        supervision = SupervisionSegment(f"cut{i}", recording.id, 0.0, recording.duration, text=text)
        cuts.append(
            MonoCut(f"cut{i}", 0.0, recording.duration, 0, supervisions=[supervision], recording=recording)
        )
    for part in ("train", "valid"):
        CutSet.from_cuts(cuts[:12] if part == "train" else cuts[12:]).to_file(
            folder / f"tiny_cuts_{part}.jsonl.gz"
        )
    text = folder / "text"
    text.write_text("\n".join(" ".join(rng.choice(words, 3)) for _ in range(100)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "bpe"), vocab_size=18, model_type="bpe", unk_id=2, bos_id=-1, eos_id=-1,
        user_defined_symbols=["<blk>", "<sos/eos>"], minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return folder


def _train(prepared, exp_dir, *argv):
    fixed = [
        "--manifest-dir",
        str(prepared),
        "--bpe-model",
        str(prepared / "bpe.model"),
        "--exp-dir",
        str(exp_dir),
        "--device",
        "cpu",
    ]
    defaults = {
        **TINY,
        "num_epochs": 2,
        "max_duration": 5.0,
        "on_the_fly_feats": True,
        "num_workers": 0,
        "bucketing_sampler": False,
    }
    defaults.update(log_interval=1, average_period=1, num_threads=1, tensorboard=False)
    with pytest.raises(SystemExit) as ended:
        main(Tiny, defaults=defaults, argv=[*fixed, *argv])
    return ended.value.code


def test_the_program_trains_and_its_checkpoints_describe_themselves(prepared, tmp_path, capfd):
    from asr_core.models.checkpoint import load_averaged_model

    assert _train(prepared, tmp_path) == 0
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
    assert _train(prepared, tmp_path) == 0 and "This run is finished" in capfd.readouterr().err
    assert _train(prepared, tmp_path, "--encoder-dim", "32,64", "--num-epochs", "3") == 1
    assert "encoder_dim was 32,48, is 32,64" in capfd.readouterr().err.splitlines()[-1]


def test_it_trains_with_adam_noise_and_an_exponential_average(prepared, tmp_path, capfd):
    from asr_core.models.checkpoint import load_averaged_model
    from asr_core.training.checkpoint import read_whole

    argv = "--optimizer adam --base-lr 0.002 --schedule noam --warmup-batches 4 --l2 1e-6 --clip-grad-norm 5 --ema-decay 0.9"
    noise = "--predictor lstm --predictor-noise 0.075 --joiner-noise 0.075 --predictor-noise-start 0"
    assert _train(prepared, tmp_path, "--num-epochs", "1", *argv.split(), *noise.split()) == 0
    assert "adam: --l2 1e-06 holds for" in capfd.readouterr().err
    content = read_whole(tmp_path / "epoch-1.pt")
    model, params = load_averaged_model(
        tmp_path, epoch=1, iter=0, avg=1, use_averaged_model=False, use_ema=True
    )
    assert params.optim == "adam" and json.loads((tmp_path / "params.json").read_text())["schedule"] == "noam"
    for name, value in model.state_dict().items():
        assert torch.equal(value, content["model_ema"][name].to(value.dtype))
    assert _train(prepared, tmp_path, "--num-epochs", "2") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert (
        "epoch-1.pt is of a run with --optimizer adam, which --optimizer scaled_adam cannot continue" in last
    )


@pytest.mark.parametrize(
    "argv, status, message",
    [
        (["--num-epoch-s", "3"], 2, "did you mean --num-epochs?"),
        (["--bpe-model", "nowhere.model"], 1, "error: no such tokenizer: nowhere.model"),
        (["--manifest-dir", "nowhere"], 1, "error: no nowhere/tiny_cuts_train.jsonl.gz"),
        (["--world-size", "0"], 1, "error: --world-size must be at least 1, got 0"),
        (["--num-workers", "-1"], 1, "error: --num-workers must be at least 0, got -1"),
        (["--max-duration", "0"], 1, "error: --max-duration must be above 0, got 0"),
        (["--use-fp16", "1"], 1, "error: --use-fp16 1: mixed precision needs a CUDA device"),
        (
            ["--input-strategy", "AudioSamples", "--on-the-fly-feats", "0"],
            1,
            "error: --input-strategy AudioSamples",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(prepared, tmp_path, capfd, argv, status, message):
    assert _train(prepared, tmp_path / "exp", *argv) == status
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


def test_defaults_of_options_that_do_not_exist_are_a_bug():
    with pytest.raises(ValueError, match="no_such_option"):
        main(Tiny, defaults={"no_such_option": 1}, argv=[])
