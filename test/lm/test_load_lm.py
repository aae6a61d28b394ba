"""Language models are found, averaged and checked against what the user says of them."""

import dataclasses

import pytest
import torch

from asr_core.decoding.scorers.neural_lm_loading import load_lm
from asr_core.lm.neural import RnnLm, TransformerLm
from asr_core.lm.options import LmOptions, RnnOptions, TransformerOptions
from asr_core.utils.errors import UserError
from asr_core.utils.options import defaults_of


def save(folder, epoch, model, prefix="", **more):
    folder.mkdir(exist_ok=True)
    torch.save(
        {"model": {prefix + k: v for k, v in model.state_dict().items()}, **more},
        folder / f"epoch-{epoch}.pt",
    )


def test_sizes_come_from_the_weights(tmp_path):
    torch.manual_seed(0)
    rnn, transformer = (
        RnnLm(7, RnnOptions(8, 12, 2, tie_weights=False)),
        TransformerLm(7, TransformerOptions(8, 6, 16, 2, 3, tie_weights=False)),
    )
    save(tmp_path, 7, rnn, prefix="module.")
    save(tmp_path / "t", 3, transformer, nhead=2)
    sentences = [[2, 3, 4], [5]]
    loaded = load_lm(LmOptions(lm_exp_dir=str(tmp_path)), 7)
    torch.testing.assert_close(loaded.sentence_log_probs(sentences), rnn.sentence_log_probs(sentences))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    again = load_lm(
        LmOptions(transformer_lm_exp_dir=str(tmp_path / "t"), lm_epoch=3), 7, lm_type="transformer"
    )
    torch.testing.assert_close(
        again.sentence_log_probs(sentences), transformer.eval().sentence_log_probs(sentences)
    )


def test_weights_of_epochs_are_averaged(tmp_path):
    models = [RnnLm(5, RnnOptions(4, 4, 1)) for _ in range(3)]
    for epoch, model in enumerate(models, 1):
        save(tmp_path, epoch, model)
    loaded = load_lm(LmOptions(lm_exp_dir=str(tmp_path), lm_epoch=3, lm_avg=2), 5)
    expected = (models[1].rnn.weight_hh_l0 + models[2].rnn.weight_hh_l0) / 2
    torch.testing.assert_close(loaded.rnn.weight_hh_l0, expected)
    assert loaded.output_linear.weight is loaded.input_embedding.weight


@pytest.mark.parametrize(
    "changes, vocab_size, lm_type, words",
    [
        ({"lm_exp_dir": None}, 5, "rnn", "--lm-exp-dir"),
        ({"lm_epoch": 4}, 5, "rnn", "no checkpoint"),
        ({"rnn_lm_hidden_dim": 9}, 5, "rnn", "--rnn-lm-hidden-dim 9 contradicts the weights, which have 4"),
        ({"lm_vocab_size": 6}, 5, "rnn", "--lm-vocab-size 6 contradicts"),
        ({}, 6, "rnn", "has 5 tokens and the acoustic model 6"),
        ({}, 5, "transformer", "of type rnn, not transformer"),
    ],
)
def test_mistakes_are_named(changes, vocab_size, lm_type, words, tmp_path):
    save(tmp_path, 7, RnnLm(5, RnnOptions(4, 4, 1)))
    with pytest.raises(UserError, match=words):
        load_lm(
            dataclasses.replace(LmOptions(lm_exp_dir=str(tmp_path)), **changes), vocab_size, lm_type=lm_type
        )


def test_options_have_the_usual_names_and_defaults():
    usual = {
        "lm_vocab_size": 500, "lm_epoch": 7, "lm_avg": 1, "lm_exp_dir": None, "rnn_lm_embedding_dim": 2048, "rnn_lm_hidden_dim": 2048,
        "rnn_lm_num_layers": 3, "rnn_lm_tie_weights": True, "transformer_lm_exp_dir": None, "transformer_lm_dim_feedforward": 2048,
        "transformer_lm_encoder_dim": 768, "transformer_lm_embedding_dim": 768, "transformer_lm_nhead": 8,
        "transformer_lm_num_layers": 16, "transformer_lm_tie_weights": True,
    }  # fmt: skip
    assert defaults_of(LmOptions) == usual


def test_other_checkpoints_are_refused(tmp_path):
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "epoch-7.pt")
    with pytest.raises(UserError, match="holds no language model"):
        load_lm(LmOptions(lm_exp_dir=str(tmp_path)), 5)
