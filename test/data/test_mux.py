"""Mixtures of corpora: lhotse's draws, fresh in each epoch, and wrong command lines."""

import pytest
from batches import data_options, ids, lazy, names, same
from lhotse import CutSet

from asr_core.data.manifest import write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.data.mux import parse_mux
from asr_core.data.stream import MuxStream, open_stream
from asr_core.utils.errors import UserError


@pytest.mark.parametrize(
    "weights, stop_early", [([1, 1, 1], False), ([5.0, 1.0, 0.5], False), ([1, 3, 1], True)]
)
def test_a_mixture_is_that_of_lhotse(corpora, weights, stop_early):
    cuts = CutSet.mux(*(lazy(corpora, n) for n in "abc"), weights=weights, stop_early=stop_early, seed=3)
    stream = open_stream(cuts, None)
    assert isinstance(stream, MuxStream) and names(stream) == [c.id for c in cuts]


def test_a_mixture_differs_by_epoch_and_all_have_their_turn(corpora):
    stream = MuxStream([open_stream(lazy(corpora, n), None) for n in "bc"], [1.0, 1.0], 0, stop_early=True)
    epochs = [names(stream, epoch) for epoch in range(1, 40)]
    assert epochs[0] == names(stream, 1) != epochs[1]
    for epoch in epochs:
        assert len([n for n in epoch if n[0] == "c"]) == 10 or len([n for n in epoch if n[0] == "b"]) == 60
    assert len({n for epoch in epochs for n in epoch}) == 70


def test_weights_are_how_often_a_corpus_is_drawn(corpora):
    stream = MuxStream([open_stream(lazy(corpora, n), None) for n in "ab"], [4.0, 1.0], 0, stop_early=True)
    drawn = [n[0] for epoch in range(1, 30) for n in names(stream, epoch)]
    assert 0.75 < drawn.count("a") / len(drawn) < 0.85


def test_use_mux_in_training(feature_cuts, corpora, tmp_path):
    other = tmp_path / "other.jsonl.gz"
    write_cuts([c.with_id(f"o-{c.id}") for c in CutSet.from_file(feature_cuts).subset(first=20)], other)
    kwargs = dict(
        use_mux=True,
        mux_cuts="train:1.0,other.jsonl.gz:1.0",
        manifest_dir=str(tmp_path),
        enable_spec_aug=False,
    )
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    module = AsrDataModule(data_options(**kwargs))
    whole = list(module.train_dataloader(cuts, 1))
    seen = sum(map(ids, whole), [])
    others = [i for i in seen if i.startswith("o-")]
    assert 0.3 < len(others) / len(seen) < 0.7 and (len(others) == 20 or len(seen) - len(others) == 40)
    again = list(AsrDataModule(data_options(**kwargs)).train_dataloader(cuts, 1, skip_batches=3))
    assert len(again) == len(whole) - 3 and all(map(same, whole[3:], again))
    assert module.survey(cuts).utterances == len(seen)
    everything = AsrDataModule(
        data_options(**{**kwargs, "mux_stop_early": False, "mux_cuts": "train,other.jsonl.gz"})
    )
    assert len(sum(map(ids, everything.train_dataloader(cuts, 1)), [])) == 60
    assert len(sum(map(ids, module.valid_dataloader(cuts)), [])) == 40  # validation is not mixed


@pytest.mark.parametrize(
    "text, words", [("train", "two corpora"), ("train:x,b:1", "a number"), ("train:0,b:1", "above 0")]
)
def test_wrong_mixtures(text, words):
    with pytest.raises(UserError, match=words):
        parse_mux(text)


def test_missing_manifests_of_a_mixture(feature_cuts):
    module = AsrDataModule(data_options(use_mux=True, mux_cuts="train:1,none.jsonl.gz:1"))
    with pytest.raises(UserError, match="no such cuts: .*none.jsonl.gz"):
        module.train_dataloader(CutSet.from_jsonl_lazy(feature_cuts), 1)


def test_the_survey_of_a_mixture_counts_what_is_drawn(feature_cuts, tmp_path):
    class OneToken:
        unk_id = 2

        def encode(self, texts):
            return [[5] for _ in texts]

    write_cuts(list(CutSet.from_file(feature_cuts).subset(first=5)), tmp_path / "few.jsonl.gz")
    kwargs = dict(use_mux=True, mux_cuts="train:1,few.jsonl.gz:1", manifest_dir=str(tmp_path))
    survey = AsrDataModule(data_options(**kwargs), 7, OneToken()).survey(CutSet.from_jsonl_lazy(feature_cuts))
    assert survey.tokens == survey.utterances < 40
