"""The recipe's programs one after the other, as a user runs them, on a miniature LibriSpeech."""

import json

import librispeech_recipe
import pytest
import torch
from librispeech_recipe import check_results

from asr_core.training.reporting.writers import read_metrics

TINY = (
    "--num-encoder-layers 1,1 --downsampling-factor 1,2 --encoder-dim 64,96 --encoder-unmasked-dim 48,64 "
    "--feedforward-dim 128 "
    "--num-heads 2 --query-head-dim 16 --cnn-module-kernel 15,7 --decoder-dim 64 --joiner-dim 64 --causal 1"
).split()
SMALL_DATA = (
    "--full-libri 0 --num-buckets 2 --num-workers 1 --num-threads 1 --device cpu --enable-musan 1".split()
)
QUICK = "--average-period 2 --save-every-n 4 --keep-last-k 2 --log-interval 1 --max-duration 20".split()
CHUNKS = "--chunk-size 16 --left-context-frames 64".split()
SELECT = "--epoch 2 --avg 1 --num-workers 1 --num-threads 1".split()

pytestmark = pytest.mark.slow


def run(program, *arguments):
    return librispeech_recipe.run(f"zipformer/{program}", *arguments)


@pytest.fixture(scope="module")
def exp_dir(mini_librispeech, tmp_path_factory):
    """Two epochs by two processes."""
    folder = tmp_path_factory.mktemp("zipformer") / "exp"
    where = [
        "--manifest-dir",
        mini_librispeech.manifest_dir,
        "--bpe-model",
        mini_librispeech.lang_dir / "bpe.model",
        "--exp-dir",
        folder,
    ]
    run("train", "--world-size", 2, "--num-epochs", 2, *where, *TINY, *SMALL_DATA, *QUICK)
    return folder


@pytest.fixture(scope="module")
def averaged(exp_dir):
    """The weights' average over the second epoch."""
    run("generate_averaged_model", "--exp-dir", exp_dir, "--epoch", 2, "--avg", 1)
    return exp_dir / "epoch-2-avg-1.pt"


def test_training_leaves_what_the_others_need(exp_dir):
    for name in (
        "epoch-1.pt",
        "epoch-2.pt",
        "best-valid-loss.pt",
        "params.json",
        "bpe.model",
        "tokens.txt",
        "metrics.jsonl",
    ):
        assert (exp_dir / name).is_file(), name
    params = json.loads((exp_dir / "params.json").read_text())
    assert params["encoder_dim"] == "64,96" and params["world_size"] == 2
    epochs = {
        r["epoch"]: r["train_loss"] for r in read_metrics(exp_dir / "metrics.jsonl") if r["type"] == "epoch"
    }
    assert epochs[2] < epochs[1]


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_decoding(exp_dir, mini_librispeech, method):
    table = run(
        "decode",
        "--exp-dir",
        exp_dir,
        "--manifest-dir",
        mini_librispeech.manifest_dir,
        *SELECT,
        "--decoding-method",
        method,
    )
    assert "test-clean" in table and "test-other" in table
    check_results(exp_dir / method, "-epoch-2_avg-1", len(mini_librispeech.texts["test-clean"]))


def test_decoding_as_a_stream(exp_dir, mini_librispeech):
    run(
        "streaming_decode",
        "--exp-dir",
        exp_dir,
        "--manifest-dir",
        mini_librispeech.manifest_dir,
        *SELECT,
        *CHUNKS,
    )
    check_results(
        exp_dir / "streaming/greedy_search",
        "_greedy-search_epoch-2_avg-1",
        len(mini_librispeech.texts["test-clean"]),
    )


def test_finetuning(averaged, mini_librispeech, tmp_path):
    where = [
        "--manifest-dir",
        mini_librispeech.manifest_dir,
        "--bpe-model",
        mini_librispeech.lang_dir / "bpe.model",
    ]
    mixed = ["--use-mux", 1, "--mux-cuts", "train:2,librispeech_cuts_train-clean-100.jsonl.gz:1"]
    other = [
        "--train-cuts",
        "librispeech_cuts_train-clean-360.jsonl.gz",
        "--valid-cuts",
        "more=librispeech_cuts_test-other.jsonl.gz",
    ]
    run(
        "finetune",
        "--finetune-ckpt",
        averaged,
        "--num-epochs",
        1,
        "--exp-dir",
        tmp_path,
        *where,
        *other,
        *mixed,
        *SMALL_DATA,
        *QUICK,
    )
    tuned = torch.load(tmp_path / "epoch-1.pt", weights_only=True)
    assert tuned["encoder_dim"] == "64,96" and tuned["base_lr"] == 0.0045
    run(
        "decode",
        "--exp-dir",
        tmp_path,
        "--manifest-dir",
        mini_librispeech.manifest_dir,
        *SELECT,
        "--epoch",
        1,
        "--use-averaged-model",
        0,
    )
    check_results(tmp_path / "greedy_search", "-epoch-1_avg-1", len(mini_librispeech.texts["test-clean"]))


def test_exported_models_transcribe_a_file(exp_dir, averaged, mini_librispeech):
    where = ["--exp-dir", exp_dir, "--epoch", 2, "--avg", 1]
    run("export", *where)
    run("export", *where, "--jit", 1, *CHUNKS)
    scripted = exp_dir / "jit_script_chunk_16_left_64.pt"
    assert scripted.is_file() and "model" in torch.load(exp_dir / "pretrained.pt", weights_only=True)
    flac = sorted((mini_librispeech.dl_dir / "LibriSpeech/test-clean").rglob("*.flac"))[0]
    told = {
        "pretrained": run(
            "pretrained", "--checkpoint", exp_dir / "pretrained.pt", "--method", "greedy_search", flac
        ),
        "averaged": run(
            "pretrained",
            "--checkpoint",
            averaged,
            "--tokens",
            exp_dir / "tokens.txt",
            "--method",
            "modified_beam_search",
            flac,
        ),
        "streaming": run(
            "jit_pretrained_streaming",
            "--nn-model-filename",
            scripted,
            "--tokens",
            exp_dir / "tokens.txt",
            flac,
        ),
    }
    for what, line in told.items():
        assert line.startswith(f"{flac}: ") and line.count("\n") == 1, what
