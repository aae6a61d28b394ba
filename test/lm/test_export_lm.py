"""Exported language models score like the trained ones; perplexity is that of whole sentences."""

import math
import re

import pytest
import torch

from asr_core.bin.export_lm import main as export_lm
from asr_core.bin.lm_perplexity import main as lm_perplexity
from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.lm.archive import LmArchive
from asr_core.lm.neural import RnnLm, TransformerLm, pad_sentences
from asr_core.lm.options import LmOptions, RnnOptions, TransformerOptions

SENTENCES = [[2, 3, 4], [5], [6, 6, 2, 3, 5]]
MODELS = {
    "rnn": lambda: RnnLm(7, RnnOptions(8, 12, 2, tie_weights=False)),
    "transformer": lambda: TransformerLm(7, TransformerOptions(8, 6, 16, 2, 3, tie_weights=False)),
}


@pytest.fixture(params=sorted(MODELS))
def trained(request, tmp_path):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    torch.save({"model": model.state_dict(), "nhead": 2}, tmp_path / "epoch-3.pt")
    return request.param, model, tmp_path


def run(program, *args):
    program(argv=[str(a) for a in args])


def test_weights_load_again_as_a_checkpoint(trained):
    kind, model, folder = trained
    run(export_lm, "--lm-type", kind, "--exp-dir", folder, "--epoch", 3)
    (folder / "epoch-99.pt").symlink_to("pretrained.pt")
    again = load_lm(LmOptions(lm_exp_dir=str(folder), lm_epoch=99), 7, lm_type=kind)
    torch.testing.assert_close(
        again.sentence_log_probs(SENTENCES), model.sentence_log_probs(SENTENCES), rtol=0, atol=0
    )


def test_the_script_scores_sentences_and_tokens(trained):
    kind, model, folder = trained
    run(export_lm, "--lm-type", kind, "--exp-dir", folder, "--epoch", 3, "--jit", 1)
    script = torch.jit.load(folder / "cpu_jit.pt")
    x, y, lens = pad_sentences(SENTENCES)
    torch.testing.assert_close(script(x, y, lens), model(x, y, lens))
    pieces = [torch.tensor([[1, 2], [1, 5]]), torch.tensor([[3], [4]]), torch.tensor([[6, 2], [2, 2]])]
    states = (torch.zeros(2, 2, 12), torch.zeros(2, 2, 12)) if kind == "rnn" else (torch.zeros(6, 2, 0, 8),)
    for n, piece in enumerate(pieces, 1):
        log_probs, *states = script.score_token(piece, *states)
        history = torch.cat(pieces[:n], dim=1)
        expected, _ = model.score_tokens(history, torch.tensor([history.size(1)] * 2))
        torch.testing.assert_close(log_probs, expected, rtol=1e-4, atol=1e-5)


def test_perplexity_counts_ends_and_words(trained, capsys):
    kind, model, folder = trained
    words, offsets = (
        torch.tensor([2, 3, 4, 5, 6], dtype=torch.int32),
        torch.tensor([0, 2, 3, 4, 5]),
    )  # word 0 is two tokens
    archive = LmArchive(
        words,
        offsets,
        torch.tensor([0, 1, 3, 2], dtype=torch.int32),
        torch.tensor([0, 2, 4]),
        torch.tensor([3, 2]),
    )
    archive.save(folder / "data.pt")
    run(
        lm_perplexity,
        "--lm-type",
        kind,
        "--exp-dir",
        folder,
        "--epoch",
        3,
        "--lm-data",
        folder / "data.pt",
        "--batch-size",
        1,
    )
    total = float(model.sentence_log_probs([[2, 3, 4], [6, 5]]).double().sum())
    printed = [float(x) for x in re.findall(r"-?\d+\.\d+", capsys.readouterr().out)]
    assert printed == pytest.approx([total, math.exp(-total / 7), math.exp(-total / 6)], abs=1e-3)


def test_mistakes_are_told_in_a_line(trained, capsys):
    kind, _, folder = trained
    other = "rnn" if kind == "transformer" else "transformer"
    with pytest.raises(SystemExit) as e:
        run(export_lm, "--lm-type", other, "--exp-dir", folder, "--epoch", 3)
    assert e.value.code == 1 and f"of type {kind}, not {other}" in capsys.readouterr().err
