"""What waits for the end of the plateau: changes of level, and cuts without words."""

from types import SimpleNamespace
from typing import NamedTuple

import fake_run
import pytest
import torch

from asr_core.data.gain import LEVELS
from asr_core.training.asr_recipe import AsrRecipe
from asr_core.utils.errors import UserError

N, T, C = 50, 6, 4
NATS_PER_DB = LEVELS["fbank"].nats_per_db


class Losses(NamedTuple):
    ctc_loss: torch.Tensor


class Listener(torch.nn.Module):
    """Model that remembers the features it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, x_lens, y, **args):
        self.heard = x
        return Losses(x.mean(dim=(1, 2)) if args["reduction"] == "none" else x.sum())


@pytest.fixture
def heard(tmp_path):
    """Function that returns the gains in dB (N,) that a model hears of features of one level."""

    def hear(batch_idx_train, *, training=True, batch_idx=0, reduction="sum", texts=("one",) * N, **options):
        params = {**fake_run.make_params(tmp_path), "use_transducer": False, "use_ctc": True, **options}
        recipe = AsrRecipe(params, fake_run.CORPUS)
        recipe.tokenizer = SimpleNamespace(encode=lambda texts: [[1]] * len(texts))
        lengths = torch.full((N,), T, dtype=torch.int32)
        batch = {
            "inputs": torch.zeros(N, T, C),
            "supervisions": {"text": list(texts), "num_frames": lengths},
            "batch_idx": batch_idx,
        }
        model = Listener().train(training)
        recipe.compute_loss(model, batch, batch_idx_train, reduction)
        gains = model.heard / NATS_PER_DB
        assert (gains == gains[:, :1, :1]).all()
        return gains[:, 0, 0]

    return hear


def test_levels_change_after_twice_the_warm_up(heard):
    assert (heard(10, warm_step=5) == 0).all()
    gains = heard(11, warm_step=5)
    changed = gains[gains != 0]
    assert 10 < len(changed) < 40 and changed.min() < -25 and changed.max() > -10
    assert -40 <= changed.min() and changed.max() <= 10


def test_the_start_and_the_range_are_options(heard):
    options = {"plateau_batches": 2, "gain_prob": 1.0, "gain_low": 3.0, "gain_high": 4.0}
    assert (heard(2, **options) == 0).all()
    gains = heard(3, **options)
    assert 3 <= gains.min() and gains.max() <= 4 and len(gains.unique()) > N // 2
    assert (heard(3, **{**options, "gain_prob": 0.0}) == 0).all()


def test_validation_keeps_all_levels(heard):
    assert (heard(3, training=False, plateau_batches=0) == 0).all()


def test_gains_depend_on_seed_and_batch_alone(heard):
    gains = heard(3, plateau_batches=0)
    torch.manual_seed(99)
    assert torch.equal(gains, heard(3, plateau_batches=0))
    assert torch.equal(gains, heard(3, plateau_batches=0, reduction="none"))  # for the search of a bad cut
    for other in (
        heard(4, plateau_batches=0),
        heard(3, plateau_batches=0, batch_idx=1),
        heard(3, plateau_batches=0, seed=1),
    ):
        assert not torch.equal(gains, other)


def test_cuts_without_words_come_in_after_the_plateau(heard):
    texts = ["", "two", " "] + ["one"] * (N - 3)
    assert len(heard(10, warm_step=5, texts=texts)) == N - 2
    assert len(heard(11, warm_step=5, texts=texts)) == N
    assert len(heard(10, warm_step=5, texts=texts, training=False)) == N
    assert len(heard(10, warm_step=5, texts=[""] * N)) == N  # nothing else to train on
    assert len(heard(10, warm_step=5, texts=texts, reduction="none")) == N  # one loss for each


def test_an_empty_range_is_refused_at_the_start(heard):
    with pytest.raises(UserError, match="--gain-low 20 is above --gain-high 10"):
        heard(1, gain_low=20.0)
