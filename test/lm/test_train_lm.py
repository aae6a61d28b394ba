"""Training of language models: perplexity falls, interrupted runs go on exactly, ranks share the
batches.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_core.bin import export_lm, train_lm
from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.lm.archive import LmArchive
from asr_core.lm.options import LmOptions, LmTrainOptions
from asr_core.models.checkpoint import load_checkpoint_file
from asr_core.training.lm_recipe import LmData, LmRecipe
from asr_core.utils.errors import UserError

V = 9
ROOT = Path(__file__).parents[2]
SIZES = {
    "rnn": ["--embedding-dim", "12", "--hidden-dim", "12", "--num-layers", "1"],
    "transformer": [
        "--encoder-dim",
        "16",
        "--embedding-dim",
        "16",
        "--dim-feedforward",
        "24",
        "--nhead",
        "2",
        "--num-layers",
        "2",
    ],
}


def archive_of(sentences):
    """An archive whose words are single tokens."""
    lengths = torch.tensor([len(s) for s in sentences], dtype=torch.int32)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    words = torch.tensor([t for s in sentences for t in s], dtype=torch.int32)
    return LmArchive(torch.arange(V, dtype=torch.int32), torch.arange(V + 1), words, offsets, lengths)


def counting_sentences(n, seed):
    """Sentences that count up from a random token: easy to learn, hard to guess."""
    rng = np.random.default_rng(seed)
    return [
        [2 + (start + i) % (V - 2) for i in range(length)] for start, length in rng.integers(1, 8, (n, 2))
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm_data")
    archive_of(counting_sentences(120, 0)).sort().save(folder / "train.pt")
    archive_of(counting_sentences(30, 1)).sort().save(folder / "valid.pt")
    return folder


def train(data, exp_dir, lm_type, *more, status=0):
    options = [
        "--lm-type",
        lm_type,
        "--lm-data",
        data / "train.pt",
        "--lm-data-valid",
        data / "valid.pt",
        "--vocab-size",
        V,
        "--lr",
        "0.02",
    ]
    options += [
        "--batch-size",
        16,
        "--exp-dir",
        exp_dir,
        "--device",
        "cpu",
        "--num-threads",
        1,
        "--tensorboard",
        0,
        "--warmup-batches",
        0,
    ]
    options += ["--average-period", 1, "--log-interval", 1, *SIZES[lm_type], *more]
    with pytest.raises(SystemExit) as e:
        train_lm.main(argv=[str(o) for o in options])
    assert e.value.code == status
    lines = [json.loads(line) for line in (Path(exp_dir) / "metrics.jsonl").read_text().splitlines()]
    return {
        kind: [r[name] for r in lines if r["type"] == kind]
        for kind, name in (("train", "loss"), ("valid", "loss"))
    }


@pytest.mark.parametrize("lm_type", ["rnn", "transformer"])
def test_perplexity_falls_and_the_model_scores(lm_type, data, tmp_path):
    losses = train(data, tmp_path, lm_type, "--num-epochs", 6)
    assert len(losses["valid"]) == 6 and losses["valid"][-1] < 0.6 * losses["train"][0]
    log = next((tmp_path / "log").glob("log-train*")).read_text()
    logged = [float(m) for m in re.findall(r"validation: perplexity ([\d.]+) per token", log)]
    assert re.search(r"rate: [\d.]+ tokens/s,", log) and "s/s" not in log.replace("tokens/s", "")
    assert logged == pytest.approx([math.exp(loss) for loss in losses["valid"]], rel=1e-3)
    lm = load_lm(LmOptions(lm_exp_dir=str(tmp_path), lm_epoch=6), V, lm_type=lm_type)
    valid = counting_sentences(30, 1)
    mean = -float(lm.sentence_log_probs(valid).sum()) / sum(len(s) + 1 for s in valid)
    assert mean == pytest.approx(losses["valid"][-1], rel=1e-4)


@pytest.mark.parametrize("lm_type", ["rnn", "transformer"])
def test_an_interrupted_run_goes_on_exactly(lm_type, data, tmp_path):
    whole = train(data, tmp_path / "whole", lm_type, "--num-epochs", 2)
    train(data, tmp_path / "parts", lm_type, "--num-epochs", 2, "--max-steps", 5)
    resumed = train(data, tmp_path / "parts", lm_type, "--num-epochs", 2)
    assert resumed == whole and len(whole["train"]) == 16


def test_diagnostics(data, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    train(data, tmp_path, "transformer", "--print-diagnostics", 1)
    assert "layers.1" in (tmp_path / "diagnostics.txt").read_text()


def test_the_loss_of_each_sentence(data):
    params = {
        "lm_type": "rnn",
        "lm_data": data / "train.pt",
        "lm_data_valid": data / "valid.pt",
        "vocab_size": V,
        "embedding_dim": 4,
        "hidden_dim": 4,
        "batch_size": 7,
    }
    recipe = LmRecipe(params)
    model = recipe.build_model()
    batch = next(iter(recipe.build_data().train_batches(1)))
    each, total = (recipe.compute_loss(model, batch, 1, reduction) for reduction in ("none", "sum"))
    sentences = [row[: n - 1].tolist() for row, n in zip(batch["targets"], batch["lens"])]
    torch.testing.assert_close(each.loss, -model.sentence_log_probs(sentences))
    torch.testing.assert_close(total.loss, each.loss.sum())
    assert (
        "--batch-size (now 7)" in recipe.smaller_batches() and "--lr (now 0.001)" in recipe.slower_learning()
    )
    assert total.frames == sum(len(s) + 1 for s in sentences) and len(sentences) == 7


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(data, tmp_path):
    """Batches 0 and 1 of ranks make the step of one process with both: the gradients are those of
    all sentences.
    """
    one = train(data, tmp_path / "one", "rnn", "--max-steps", 1, "--batch-size", 120, "--num-epochs", 1)
    two = train(
        data,
        tmp_path / "two",
        "rnn",
        "--max-steps",
        1,
        "--batch-size",
        60,
        "--num-epochs",
        1,
        "--world-size",
        2,
    )
    assert two["train"] == pytest.approx(one["train"], rel=1e-5)
    weights = [
        torch.load(tmp_path / name / "checkpoint-1.pt", weights_only=False)["model"]
        for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-4, rtol=1e-3)


def test_every_sentence_once_an_epoch_whoever_takes_it():
    archive, opts = archive_of(counting_sentences(103, 2)), LmTrainOptions(batch_size=8, max_sent_len=6)
    usable = sorted(i for i, n in enumerate(archive.sentence_lengths.tolist()) if n <= 6)

    def ids(rank, size, skip=0, epoch=1):
        batches = LmData(archive, archive, opts, seed=42, rank=rank, world_size=size)
        return [(b["batch_idx"], b["sentences"].tolist()) for b in batches.train_batches(epoch, skip)]

    alone = ids(0, 1)
    assert sorted(i for _, batch in alone for i in batch) == usable and len(usable) < 103
    both = ids(0, 2) + ids(1, 2)
    assert sorted(i for _, batch in both for i in batch) == usable and sorted(
        index for index, _ in both
    ) == list(range(len(alone)))
    assert ids(0, 1, skip=5) == alone[5:] and ids(0, 1, epoch=2) != alone
    validated = [
        n for b in LmData(archive, archive, opts, seed=42).valid_batches() for n in b["sentences"].tolist()
    ]
    assert sorted(validated) == list(range(103))


@pytest.mark.parametrize(
    "options, words",
    [
        (["--vocab-size", "5"], "has token 8: --vocab-size must be that of its tokenizer, not 5"),
        (["--max-sent-len", "0"], "at least 1"),
        (["--lm-data", "none.pt"], "--lm-data: cannot read none.pt: No such file"),
        (["--hidden-dim", "13"], "--embedding-dim and --hidden-dim"),
        (["--num-layers", "0"], "--num-layers must be at least 1 and at most 1024, got 0"),
        (["--embedding-dim", "-1"], "--embedding-dim must be at least 1 and at most 65536, got -1"),
        (["--lm-type", "transformer", "--dropout", "1"], "--dropout must be at least 0 and below 1, got 1"),
    ],
)
def test_mistakes_end_with_one_line(options, words, data, tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("")
    lm_type = "transformer" if "transformer" in options else "rnn"
    train(data, tmp_path, lm_type, *options, status=1)
    assert words in capsys.readouterr().err


def test_help_shows_the_defaults_of_the_recipe():
    for lm_type, words in (
        ("rnn", ("default: 2048", "rnn_lm/exp")),
        ("transformer", ("default: 768", "transformer_lm/exp")),
    ):
        command = [sys.executable, ROOT / f"egs/librispeech/ASR/{lm_type}_lm/train.py", "--help"]
        shown = subprocess.run(
            command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
        ).stdout
        assert all(w in shown for w in words) and "--prune-range" not in shown
        assert ("--nhead" in shown) == (lm_type == "transformer") and ("--hidden-dim" in shown) == (
            lm_type == "rnn"
        )


def test_the_tokens_of_the_data_are_recorded_and_compared(data, tmp_path, capfd):
    pieces = ["<blk>", "<sos/eos>", "<unk>", *"abcdef"]
    for part, seed in (("train", 0), ("valid", 1)):
        archive = archive_of(counting_sentences(30, seed))._replace(pieces=pieces)
        archive.save(tmp_path / f"{part}.pt")
    train(tmp_path, tmp_path / "exp", "rnn", "--num-epochs", 1)
    assert load_checkpoint_file(tmp_path / "exp/epoch-1.pt")["pieces"] == pieces
    opts = LmOptions(lm_exp_dir=str(tmp_path / "exp"), lm_epoch=1)
    load_lm(opts, V, pieces=pieces)
    other = [*pieces[:5], "x", *pieces[6:]]
    with pytest.raises(UserError, match="token 5 is 'c', of what it is used with 'x'"):
        load_lm(opts, V, pieces=other)
    export_lm.main(lm_type="rnn", argv=["--exp-dir", str(tmp_path / "exp"), "--epoch", "1", "--avg", "1"])
    assert load_checkpoint_file(tmp_path / "exp/pretrained.pt")["pieces"] == pieces
    archive_of(counting_sentences(30, 1))._replace(pieces=other).save(tmp_path / "valid.pt")
    train(tmp_path, tmp_path / "exp", "rnn", "--num-epochs", 2, status=1)
    assert "its token 5 is 'x', the training data's 'c'" in capfd.readouterr().err
    archive_of(counting_sentences(30, 0))._replace(pieces=other).save(tmp_path / "train.pt")
    train(tmp_path, tmp_path / "exp", "rnn", "--num-epochs", 2, status=1)
    assert "cannot continue: its token 5 is 'x', the run's 'c'" in capfd.readouterr().err
