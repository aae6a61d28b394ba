"""Batches: the same whatever the number of workers and wherever a run resumes; bad cuts dropped and
counted.
"""

import random

import numpy as np
import pytest
import torch
from batches import data_options, ids, same
from lhotse import CutSet
from lhotse.dataset import K2SpeechRecognitionDataset

from asr_core.data.batch import with_words
from asr_core.data.features import LOG_EPS
from asr_core.data.filter import DropReport, subsampled_length
from asr_core.data.manifest import write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.text.tokenizer import Tokenizer
from asr_core.text.train_tokenizer import train_tokenizer
from asr_core.utils.errors import UserError


def batches(path, epoch=1, skip=0, module=None, **kwargs):
    module = module or AsrDataModule(data_options(**kwargs), seed=7)
    return list(module.train_dataloader(CutSet.from_jsonl_lazy(path), epoch, skip))


@pytest.fixture(scope="module")
def noise(feature_cuts):
    """A manifest of noise cuts with features: here, some of the cuts themselves."""
    path = feature_cuts.parent / "noise.jsonl.gz"
    write_cuts(list(CutSet.from_file(feature_cuts))[:5], path)
    return str(path)


@pytest.mark.parametrize("strategy", ["PrecomputedFeatures", "OnTheFlyFeatures"])
def test_batches_do_not_depend_on_workers_or_resuming(feature_cuts, noise, strategy):
    kwargs = dict(input_strategy=strategy, noise_manifest=noise)
    whole = batches(feature_cuts, **kwargs)
    assert len(whole) > 6 and sum(len(ids(b)) for b in whole) == 40
    parallel = batches(feature_cuts, num_workers=2, **kwargs)
    resumed = batches(feature_cuts, skip=4, **kwargs)
    assert len(parallel) == len(whole) and all(map(same, whole, parallel))
    assert len(resumed) == len(whole) - 4 and all(map(same, whole[4:], resumed))


def test_epochs_differ_and_repeat(feature_cuts):
    first, again, second = batches(feature_cuts, 1), batches(feature_cuts, 1), batches(feature_cuts, 2)
    assert all(map(same, first, again))
    assert [ids(b) for b in first] != [ids(b) for b in second]
    assert sorted(sum(map(ids, first), [])) == sorted(sum(map(ids, second), []))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_callers_random_state_is_untouched(feature_cuts, noise, workers):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    batches(feature_cuts, num_workers=workers, noise_manifest=noise)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate() and before[2] == np.random.get_state()[1].tolist()


def test_ranks_share_an_epoch(feature_cuts):
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    whole = list(AsrDataModule(data_options(), 7).train_dataloader(cuts, 1, bucket_run=3))
    for first in (0, 3):
        parts = [
            list(AsrDataModule(data_options(), 7, rank=r, world_size=3).train_dataloader(cuts, 1, first))
            for r in range(3)
        ]
        assert len({len(part) for part in parts}) > 1 or len(whole) % 3 == 0
        got = sorted(sum(parts, []), key=lambda batch: batch["batch_idx"])
        assert len(got) == len(whole) - first and all(map(same, got, whole[first:]))


def test_ranks_share_the_validation_set(feature_cuts):
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    whole = list(AsrDataModule(data_options()).valid_dataloader(cuts))
    parts = [list(AsrDataModule(data_options(), rank=r, world_size=2).valid_dataloader(cuts)) for r in (0, 1)]
    assert (
        all(map(same, parts[0], whole[0::2]))
        and all(map(same, parts[1], whole[1::2]))
        and len(parts[1]) == len(whole) // 2
    )


def test_a_batch_is_like_lhotses(feature_cuts):
    cuts = CutSet.from_file(feature_cuts).subset(first=5)
    module = AsrDataModule(data_options(bucketing_sampler=False, max_duration=100.0))
    (got,) = module.test_dataloader(cuts)
    want = K2SpeechRecognitionDataset(return_cuts=True)[cuts]
    assert torch.allclose(got["inputs"], want["inputs"], atol=1e-4)
    for name in ("sequence_idx", "start_frame", "num_frames"):
        assert got["supervisions"][name].tolist() == want["supervisions"][name].tolist()
    assert got["supervisions"]["text"] == want["supervisions"]["text"]
    shortest = got["supervisions"]["num_frames"].argmin()
    assert torch.all(
        got["inputs"][shortest, got["supervisions"]["num_frames"][shortest] :] == torch.tensor(LOG_EPS)
    )


def test_stored_and_computed_features_agree(feature_cuts):
    cuts = CutSet.from_file(feature_cuts).subset(first=6)
    (stored,) = AsrDataModule(data_options(bucketing_sampler=False, max_duration=100.0)).test_dataloader(cuts)
    (computed,) = AsrDataModule(
        data_options(bucketing_sampler=False, max_duration=100.0, on_the_fly_feats=True)
    ).test_dataloader(cuts)
    assert torch.allclose(
        stored["inputs"], computed["inputs"], atol=0.01
    )  # half precision of stored features


def test_audio_batches(audio_cuts):
    cuts = CutSet.from_file(audio_cuts).subset(first=3)
    (batch,) = AsrDataModule(
        data_options(bucketing_sampler=False, max_duration=100.0, input_strategy="AudioSamples")
    ).test_dataloader(cuts)
    want = sorted((c.num_samples for c in cuts), reverse=True)
    assert batch["supervisions"]["num_samples"].tolist() == want and batch["inputs"].shape == (3, want[0])
    assert np.allclose(batch["inputs"][0], batch["supervisions"]["cut"][0].load_audio()[0])


def test_spec_augment_masks_training_batches_only(feature_cuts):
    plain = batches(feature_cuts, enable_spec_aug=False)
    masked = batches(feature_cuts)
    assert [ids(b) for b in plain] == [ids(b) for b in masked]
    assert not any(torch.equal(a["inputs"], b["inputs"]) for a, b in zip(plain, masked))
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    valid = {
        i: x
        for b in AsrDataModule(data_options()).valid_dataloader(cuts)
        for i, x in zip(ids(b), b["inputs"])
    }
    first = plain[0]
    for i, x, n in zip(ids(first), first["inputs"], first["supervisions"]["num_frames"]):
        assert torch.equal(x[:n], valid[i][:n])


def lengths(some_batches):
    return {i: int(n) for b in some_batches for i, n in zip(ids(b), b["supervisions"]["num_frames"])}


def test_tail_silence_lengthens_some_training_cuts_only(feature_cuts):
    plain = lengths(batches(feature_cuts, enable_spec_aug=False))
    longer = batches(feature_cuts, enable_spec_aug=False, tail_silence_prob=0.5)
    added = {i: n - plain[i] for i, n in lengths(longer).items()}
    assert 0 in added.values() and 0 < max(added.values()) <= 40 and min(added.values()) == 0
    for batch in longer:
        for i, row in zip(ids(batch), batch["inputs"]):
            assert (row[plain[i] :] == np.float32(LOG_EPS)).all() and (row[: plain[i]] > LOG_EPS).any()
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    assert lengths(AsrDataModule(data_options(tail_silence_prob=0.5)).valid_dataloader(cuts)) == plain


def test_noise_raises_energy_and_keeps_ids(feature_cuts, noise):
    clean = batches(feature_cuts, enable_spec_aug=False, enable_musan=False)
    noisy = batches(feature_cuts, enable_spec_aug=False, noise_manifest=noise)
    changed = total = 0
    for a, b in zip(clean, noisy):
        assert sorted(ids(a)) == sorted(ids(b))
        mixed = {i: x for i, x in zip(ids(b), b["inputs"])}
        for i, x, n in zip(ids(a), a["inputs"], a["supervisions"]["num_frames"]):
            difference = mixed[i][:n] - x[:n]
            assert difference.min() > -0.05
            changed += bool(difference.max() > 0.05)
            total += 1
    assert 0.25 * total < changed < 0.75 * total  # the probability is a half


def test_missing_noise_is_an_error_only_if_asked_for(feature_cuts):
    assert batches(feature_cuts)
    with pytest.raises(UserError, match="musan_cuts"):
        batches(feature_cuts, enable_musan=True)


def test_speed_perturbation(audio_cuts):
    got = batches(audio_cuts, on_the_fly_feats=True, speed_perturb=True, enable_spec_aug=False)
    lengths = {i: int(n) for b in got for i, n in zip(ids(b), b["supervisions"]["num_frames"])}
    assert len(lengths) == 120
    for i in ("u00", "u07"):
        assert (
            abs(lengths[f"{i}_sp0.9"] - lengths[i] / 0.9) <= 1
            and abs(lengths[f"{i}_sp1.1"] - lengths[i] / 1.1) <= 1
        )
    with pytest.raises(UserError, match="on-the-fly-feats"):
        batches(audio_cuts, speed_perturb=True)


def test_joined_cuts_have_one_text(feature_cuts):
    got = batches(
        feature_cuts, concatenate_cuts=True, gap=0.1, enable_spec_aug=False, max_duration=12.0, num_buckets=1
    )
    texts = [t for b in got for t in b["supervisions"]["text"]]
    assert len(texts) < 40 and sum(len(t.split()) for t in texts) == 10 * 10
    for batch in got:
        assert len(batch["supervisions"]["text"]) == len(batch["inputs"])
        assert batch["supervisions"]["num_frames"].max() == batch["inputs"].shape[1]


def test_bad_cuts_are_dropped_and_counted(feature_cuts, tmp_path, caplog):
    (tmp_path / "text").write_text("one two three four five six seven eight nine zero\n")
    train_tokenizer(tmp_path / "text", tmp_path, 18, "char")
    cuts = list(CutSet.from_file(feature_cuts))
    for i, text in {1: "", 2: "one two three " * 30, 3: "one é"}.items():
        cuts[i].supervisions[0].text = text
    write_cuts(cuts, tmp_path / "c.jsonl.gz")
    module = AsrDataModule(
        data_options(min_duration=0.55, max_utt_duration=1.95), 7, Tokenizer.load(tmp_path)
    )
    got = batches(tmp_path / "c.jsonl.gz", module=module)
    batches(tmp_path / "c.jsonl.gz", epoch=2, module=module)  # counts each cut once
    counts = module.dropped.counts()
    assert counts["no text"] == 1
    assert counts["more than 1 tokens per encoder frame"] == 1
    assert counts["characters that the tokens lack: é"] == 1
    assert counts["shorter than 0.55 s"] == 3 and counts["longer than 1.95 s"] == 2
    assert sum(len(ids(b)) for b in got) == 40 - module.dropped.total
    assert caplog.text.count("cuts dropped") == 1 and "u02" in caplog.text
    caplog.clear()
    other = AsrDataModule(data_options(min_duration=0.55), 7, rank=1, world_size=2)
    batches(tmp_path / "c.jsonl.gz", module=other)
    assert "cuts dropped" not in caplog.text and other.dropped.total == 0  # rank 0 tells it


def test_what_was_dropped_is_told_once(caplog):
    report = DropReport()
    report.add("a", "no text")
    report.mark_reported()
    report.log("epoch 1")
    assert not caplog.text
    for name in ("a", "b", "c"):
        report.add(name, "no text")
    report.log("epoch 1")
    report.log("epoch 2")
    assert (
        caplog.text.count("dropped") == 1
        and "epoch 1: 2 cuts dropped: 2 x no text (b, c)" in caplog.text
        and report.total == 3
    )


@pytest.mark.parametrize("first", ["training", "validation"])
def test_what_is_dropped_is_told_where_it_was_met(feature_cuts, tmp_path, caplog, first):
    """Unreadable cuts of training are told as training's, those of validation as validation's."""
    cuts = list(CutSet.from_file(feature_cuts))[:12]
    for i in (3, 8):
        cuts[i].features.storage_path = str(feature_cuts.parent / "none.f16")
    cuts[10].supervisions[0].text = ""
    write_cuts(cuts[:6], tmp_path / "train.jsonl.gz")
    write_cuts(cuts[6:], tmp_path / "valid.jsonl.gz")
    module = AsrDataModule(data_options(), 7)
    train, valid = (CutSet.from_jsonl_lazy(tmp_path / f"{part}.jsonl.gz") for part in ("train", "valid"))
    loaders = [module.train_dataloader(train, 1), module.valid_dataloader(valid)]
    for loader in loaders if first == "training" else loaders[::-1]:
        list(loader)
    told = {record.getMessage().split(":")[0]: record.getMessage() for record in caplog.records}
    assert set(told) == {"epoch 1", "validation"}
    assert "epoch 1: 1 cuts dropped: 1 x unreadable" in told["epoch 1"] and "(u03)" in told["epoch 1"]
    assert "validation: 2 cuts dropped: 1 x " in told["validation"] and "(u08)" in told["validation"]
    assert "no text (u10)" in told["validation"] and module.dropped.total == 3


@pytest.mark.parametrize("number", [2, 12])
def test_features_of_another_size_are_dropped_by_name(feature_cuts, tmp_path, caplog, number):
    cuts = list(CutSet.from_file(feature_cuts))[:12]
    for cut in cuts[:number]:
        cut.features.num_features = 40
    write_cuts(cuts, tmp_path / "c.jsonl.gz")
    module = AsrDataModule(data_options(), 7)
    reason = "features of another size: prepared with --num-mel-bins 40, not 80"
    if number == 12:
        with pytest.raises(
            UserError, match=rf"epoch 1: no batch could be made; dropped: 12 x {reason} \(u00, "
        ):
            batches(tmp_path / "c.jsonl.gz", module=module)
        return
    got = batches(tmp_path / "c.jsonl.gz", module=module)
    assert sorted(sum(map(ids, got), [])) == [f"u{i:02d}" for i in range(2, 12)]
    assert f"epoch 1: 2 cuts dropped: 2 x {reason} (u00, u01)" in caplog.text


def test_filter_uses_the_encoders_length():
    assert [subsampled_length(n) for n in (8, 9, 10, 11, 45, 100, 1000)] == [0, 1, 1, 1, 10, 23, 248]
    assert [subsampled_length(n, 8) for n in (9, 45, 1000)] == [0, 5, 124] and subsampled_length(45, 3) == 13


def test_unreadable_audio_is_dropped_while_loading(audio_cuts, tmp_path):
    cuts = list(CutSet.from_file(audio_cuts))[:4]
    broken = tmp_path / "broken.flac"
    broken.write_bytes(b"fLaC")
    cuts[1].recording.sources[0].source = str(broken)
    cuts[2].recording.sources[0].source = str(tmp_path / "missing.flac")
    module = AsrDataModule(data_options(max_duration=1.0, on_the_fly_feats=True, shuffle=False), 7)
    got = list(module.train_dataloader(CutSet.from_cuts(cuts), 1))
    assert sorted(sum(map(ids, got), [])) == [cuts[0].id, cuts[3].id]
    assert module.dropped.total == 2 and all("unreadable" in reason for reason in module.dropped.counts())


def test_no_batches_at_all_is_an_error(feature_cuts):
    with pytest.raises(UserError, match="drop-last 0"):
        batches(feature_cuts, max_duration=1000.0, drop_last=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_features_in_icefalls_form(audio_cuts, tmp_path, monkeypatch, workers):
    pytest.importorskip("lilcom", reason="pip install lilcom")
    from lhotse import Fbank, FbankConfig, LilcomChunkyWriter

    cuts = CutSet.from_file(audio_cuts).subset(first=5)
    stored = cuts.compute_and_store_features(
        Fbank(FbankConfig(num_mel_bins=80)),
        str(tmp_path / "feats"),
        storage_type=LilcomChunkyWriter,
        progress_bar=False,
    )
    stored.to_file(tmp_path / "c.jsonl.gz")
    got = batches(tmp_path / "c.jsonl.gz", max_duration=100.0, enable_spec_aug=False, num_workers=workers)
    want = batches(audio_cuts, max_duration=100.0, enable_spec_aug=False, on_the_fly_feats=True)
    rows = {i.split("-")[0]: x for batch in want for i, x in zip(ids(batch), batch["inputs"])}
    for batch in got:
        for i, x, n in zip(ids(batch), batch["inputs"], batch["supervisions"]["num_frames"]):
            assert (x[:n] - rows[i][:n]).abs().max() < 0.1
    monkeypatch.setitem(__import__("sys").modules, "lilcom", None)
    with pytest.raises(UserError, match="pip install lilcom"):
        batches(tmp_path / "c.jsonl.gz", max_duration=100.0, num_workers=workers)


def wordless(feature_cuts, target):
    """A manifest of three cuts: with words, with an empty text, without a supervision."""
    cuts = list(CutSet.from_file(feature_cuts))[:4]
    cuts[1].supervisions[0].text = " "
    cuts[2].supervisions[0].text = None
    cuts[3].supervisions = []
    write_cuts(cuts, target)
    return cuts


@pytest.mark.parametrize("workers", [0, 2])
def test_cuts_without_words_are_dropped_or_kept(feature_cuts, tmp_path, workers):
    path = tmp_path / "c.jsonl.gz"
    cuts = wordless(feature_cuts, path)
    options = dict(max_duration=100.0, num_workers=workers, bucketing_sampler=False)
    module = AsrDataModule(data_options(**options))
    (batch,) = batches(path, module=module)
    assert ids(batch) == [cuts[0].id] and module.dropped.counts() == {"no text": 3}
    (batch,) = batches(path, empty_text="keep", **options)
    texts = dict(zip(ids(batch), batch["supervisions"]["text"]))
    assert texts == {cuts[0].id: cuts[0].supervisions[0].text, **{c.id: "" for c in cuts[1:]}}
    lengths = dict(zip(ids(batch), batch["supervisions"]["num_frames"].tolist()))
    assert lengths == {c.id: c.num_frames for c in cuts}


def test_cuts_without_words_are_joined_and_mixed_with_noise(feature_cuts, noise, tmp_path):
    path = tmp_path / "c.jsonl.gz"
    cuts = wordless(feature_cuts, path)
    joined = batches(
        path,
        empty_text="keep",
        noise_manifest=noise,
        concatenate_cuts=True,
        duration_factor=9.0,
        max_duration=100.0,
        bucketing_sampler=False,
    )
    texts = [text for batch in joined for text in batch["supervisions"]["text"]]
    assert [text for text in texts if text] == [cuts[0].supervisions[0].text] and len(texts) < 4


def test_the_cuts_with_words_of_a_batch(feature_cuts):
    (batch, *_) = batches(feature_cuts)
    n = len(batch["supervisions"]["text"])
    assert n > 2 and with_words(batch) is batch
    wordless = {**batch, "supervisions": {**batch["supervisions"], "text": [""] * n}}
    assert with_words(wordless) is wordless
    batch["supervisions"]["text"][1] = "  "
    rest = with_words(batch)
    rows = [0, *range(2, n)]
    assert ids(rest) == [ids(batch)[i] for i in rows] and torch.equal(rest["inputs"], batch["inputs"][rows])
    assert rest["supervisions"]["num_frames"].tolist() == batch["supervisions"]["num_frames"][rows].tolist()
    assert rest["supervisions"]["sequence_idx"].tolist() == list(range(n - 1))
