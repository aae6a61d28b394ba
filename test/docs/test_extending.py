"""The examples of docs/extending.md: each is followed as a reader would."""

import json
import re
import shutil
import sys
import types
from pathlib import Path

import made_up_corpus
import pytest
import torch
from small_tokenizer import train_bpe

from asr_core.bin import recipe
from asr_core.decoding import registry as methods
from asr_core.encoders import registry as encoders
from asr_core.models.build import build_model
from asr_core.models.options import options_class
from asr_core.utils.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (.*?)\n(.*?)```", PAGE, re.DOTALL))
RECIPE = [f"egs/tones/ASR/recipe.py{part}" for part in ("", ", continued", ", continued again")]
SMALL = {
    "--num-encoder-layers": "1,1",
    "--downsampling-factor": "1,2",
    "--encoder-dim": "32",
    "--encoder-unmasked-dim": "24",
    "--feedforward-dim": "48",
    "--num-heads": "2",
    "--query-head-dim": "8",
    "--cnn-module-kernel": "7",
    "--decoder-dim": "32",
    "--joiner-dim": "32",
    "--use-ctc": "1",
    "--num-mel-bins": "20",
    "--on-the-fly-feats": "1",
    "--enable-musan": "0",
    "--speed-perturb": "0",
    "--num-workers": "0",
    "--max-duration": "5",
    "--drop-last": "0",
    "--num-buckets": "2",
    "--log-interval": "1",
    "--average-period": "1",
    "--save-every-n": "100",
}


def pretend_file(monkeypatch, path):
    """Make the module that the page shows as file ``path``."""
    module = types.ModuleType(path[: -len(".py")].replace("/", "."))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(BLOCKS[path], module.__dict__)
    return module


@pytest.fixture
def perceptron(monkeypatch):
    options = pretend_file(monkeypatch, "asr_core/encoders/perceptron_options.py")
    pretend_file(monkeypatch, "asr_core/encoders/perceptron.py")
    names = {"EncoderSpec": encoders.EncoderSpec, "PerceptronOptions": options.PerceptronOptions}
    entry = BLOCKS["in asr_core/encoders/registry.py"]
    for name, spec in eval(f"{{{entry}}}", names).items():
        monkeypatch.setitem(encoders.ENCODERS, name, spec)
    yield options_class("perceptron")
    options_class.cache_clear()


def test_an_encoder(perceptron):
    opts = perceptron(encoder_dim=8, num_encoder_layers=2, decoder_dim=8, joiner_dim=8)
    model = build_model(opts, vocab_size=5)
    losses = model(torch.randn(2, 50, 80), torch.tensor([50, 33]), [[1, 2], [3]])
    losses.pruned_loss.backward()
    assert all(p.grad is not None for p in model.encoder.parameters())
    assert encoders.subsampling_factor(opts) == model.geometry.subsampling_factor == 4


def test_an_encoder_that_cannot_stream_says_so(perceptron):
    with pytest.raises(UserError, match="does not stream"):
        build_model(perceptron(causal=True), vocab_size=5)
    model = build_model(perceptron(encoder_dim=8), vocab_size=5)
    with pytest.raises(UserError, match="not causal"):
        model.encoder._check_streaming()
    with pytest.raises(UserError, match="no inner outputs"):
        build_model(perceptron(encoder_dim=8, use_ctc=True, intermediate_ctc_stacks=(1,)), vocab_size=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """egs/tones/ASR with stubs and data, without a recipe.py."""
    folder = tmp_path_factory.mktemp("egs") / "tones" / "ASR"
    made_up_corpus.write_corpus(folder / "data")
    manifests = folder / "data" / "manifests"
    shutil.copy(manifests / "tones_cuts_valid.jsonl.gz", manifests / "tones_cuts_test.jsonl.gz")
    (folder / "data" / "lang_bpe").mkdir()
    train_bpe(folder / "data" / "lang_bpe", ["ABC CAB BED DEAF FACE EBB"] * 20, 12)
    for name in ("train.py", "decode.py"):
        shutil.copy(ROOT / "egs" / "custom" / "ASR" / name, folder / name)
    return folder


def run(folder, name, *argv, status=None):
    """Run a program of the folder in this process."""
    options = [word for pair in SMALL.items() for word in pair] if name == "train" else []
    ended = None
    try:
        recipe.run(str(folder / f"{name}.py"), "__main__", [*options, *argv])
    except SystemExit as e:
        ended = e.code
    assert ended == status


@pytest.fixture
def train(folder, monkeypatch):
    """Write recipe.py from its first blocks on the page and train; returns the records of the
    steps.
    """

    def train(recipe_blocks, exp_dir, *argv):
        monkeypatch.chdir(folder)
        for name in [name for name in sys.modules if name.startswith("recipe_file_")]:
            del sys.modules[name]
        (folder / "recipe.py").write_text("\n".join(BLOCKS[name] for name in RECIPE[:recipe_blocks]))
        for name in ("centred.py", "adjustable.py"):
            (folder / name).write_text(BLOCKS[f"egs/tones/ASR/{name}"])
        run(folder, "train", "--manifest-dir", "data/manifests", "--exp-dir", exp_dir, *argv, status=0)
        lines = (folder / exp_dir / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["type"] == "train"]

    return train


def test_a_corpus_and_a_decoding_method(train, folder, monkeypatch, capsys):
    records = train(1, "exp")
    assert len(records) >= 2 and all(record["loss"] > 0 for record in records)
    confident = pretend_file(monkeypatch, "asr_core/decoding/methods/confident.py")
    names = {**vars(methods), "confident": confident}
    entry = BLOCKS["in asr_core/decoding/registry.py"]
    for method in eval(f"[method {entry.strip()}]", names):
        monkeypatch.setitem(methods.METHODS, method.name, method)
    for name in ("ctc-confident-search", "ctc-greedy-search"):
        run(folder, "decode", "--manifest-dir", "data/manifests", "--decoding-method", name,
            "--on-the-fly-feats", "1", "--avg", "1", "--use-averaged-model", "0")  # fmt: skip
    assert "clean" in capsys.readouterr().out
    sure, all_tokens = (
        (folder / "exp" / name / "recogs-clean-epoch-2_avg-1_chunk--1_left-context--1.txt").read_text()
        for name in ("ctc-confident-search", "ctc-greedy-search")
    )
    assert len(sure) <= len(all_tokens) and "ref=" in sure


def test_a_loss(train):
    plain = train(1, "exp-plain", "--max-steps", "1")
    centred = train(2, "exp-centred", "--max-steps", "1")
    penalty = centred[0]["centre_loss"]
    assert penalty > 0
    assert centred[0]["loss"] == pytest.approx(plain[0]["loss"] + 0.1 * penalty, rel=1e-4)


def test_an_option(train, folder, capsys):
    without = train(3, "exp-0", "--max-steps", "1", "--centre-scale", "0")
    half = train(3, "exp-5", "--max-steps", "1", "--centre-scale", "0.5")
    assert half[0]["loss"] == pytest.approx(without[0]["loss"] + 0.5 * half[0]["centre_loss"], rel=1e-4)
    assert json.loads((folder / "exp-5" / "params.json").read_text())["centre_scale"] == 0.5
    with pytest.raises(AssertionError):
        train(3, "exp-bad", "--centre-scale", "-1")
    assert "--centre-scale must be at least 0" in capsys.readouterr().err
