"""Streams and samplers: light reading changes nothing; mixtures, shards, skipping."""

import random
import time

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.utils import fastcopy

from asr_core.bin import write_shar
from asr_core.data import stream as streams
from asr_core.data.corpus import Corpus
from asr_core.data.cut_refs import load_cut
from asr_core.data.filter import CutFilter, DropReport
from asr_core.data.manifest import make_cut, write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.data.mux import parse_mux
from asr_core.data.open_cuts import open_shar, shar_record
from asr_core.data.options import DataOptions
from asr_core.data.sampler import BucketSampler, duration_bins
from asr_core.data.stream import MuxStream, open_stream, view_of_line
from asr_core.utils.errors import UserError


def options(**kwargs) -> DataOptions:
    return DataOptions(
        **{"max_duration": 6.0, "num_buckets": 3, "num_workers": 0, "drop_last": False, **kwargs}
    )


def ids(batch):
    return [c.id for c in batch["supervisions"]["cut"]]


def same(a, b):
    return ids(a) == ids(b) and torch.equal(a["inputs"], b["inputs"]) and a["batch_idx"] == b["batch_idx"]


def names(stream, epoch=None):
    return [load_cut(ref).id for _, ref in stream.items(epoch)]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Three manifests of cuts without data: a with 30, b with 60, c with 10."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, number in (("a", 30), ("b", 60), ("c", 10)):
        rng = random.Random(number)
        cuts = [
            make_cut(f"{name}{i:02d}", "x.flac", int(16000 * rng.uniform(1, 5)), 16000, "x")
            for i in range(number)
        ]
        write_cuts(cuts, folder / f"{name}.jsonl.gz")
    return folder


def lazy(folder, name):
    return CutSet.from_jsonl_lazy(folder / f"{name}.jsonl.gz")


def test_a_view_tells_what_the_cut_tells(feature_cuts, audio_cuts):
    for path in (feature_cuts, audio_cuts):
        with streams.open_lines(path) as lines:
            for line, cut in zip(lines, CutSet.from_jsonl_lazy(path)):
                for speed in (1.0, 0.9, 1.1):
                    if speed != 1.0 and path == feature_cuts:
                        continue
                    view, real = view_of_line(line, speed), cut if speed == 1.0 else cut.perturb_speed(speed)
                    assert (view.id, view.has_features) == (real.id, real.has_features) and abs(
                        view.duration - real.duration
                    ) < 1e-3
                    assert (
                        view.num_frames == (real.num_frames or 0)
                        and view.supervisions[0].text == real.supervisions[0].text
                    )


def test_later_passes_are_as_the_first(feature_cuts):
    report = DropReport()
    keep = CutFilter(options(min_duration=0.55), None, report)
    stream = open_stream(CutSet.from_jsonl_lazy(feature_cuts), keep)
    first = [(d, ref.line) for d, ref in stream.items()]
    keep.count_tokens = None  # would fail if it were asked again
    assert (
        first == [(d, ref.line) for d, ref in stream.items()]
        and len(first) == 40 - report.total == stream.survey()[0]
    )


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
    module = AsrDataModule(options(**kwargs))
    whole = list(module.train_dataloader(cuts, 1))
    seen = sum(map(ids, whole), [])
    others = [i for i in seen if i.startswith("o-")]
    assert 0.3 < len(others) / len(seen) < 0.7 and (len(others) == 20 or len(seen) - len(others) == 40)
    again = list(AsrDataModule(options(**kwargs)).train_dataloader(cuts, 1, skip_batches=3))
    assert len(again) == len(whole) - 3 and all(map(same, whole[3:], again))
    assert module.survey(cuts).utterances == len(seen)
    everything = AsrDataModule(
        options(**{**kwargs, "mux_stop_early": False, "mux_cuts": "train,other.jsonl.gz"})
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
    module = AsrDataModule(options(use_mux=True, mux_cuts="train:1,none.jsonl.gz:1"))
    with pytest.raises(UserError, match="no such cuts: .*none.jsonl.gz"):
        module.train_dataloader(CutSet.from_jsonl_lazy(feature_cuts), 1)


def test_survey_counts_tokens_and_unknown_characters(feature_cuts, tmp_path):
    from asr_core.text.tokenizer import Tokenizer
    from asr_core.text.train_tokenizer import train_tokenizer

    (tmp_path / "text").write_text("one two three four five six seven eight nine zero\n")
    train_tokenizer(tmp_path / "text", tmp_path, 19, "char")
    tokenizer = Tokenizer.load(tmp_path)
    cuts = list(CutSet.from_file(feature_cuts))
    cuts[0].supervisions[0].text = "one é"
    write_cuts(cuts, tmp_path / "c.jsonl.gz")
    module = AsrDataModule(options(), 7, tokenizer)
    survey = module.survey(CutSet.from_jsonl_lazy(tmp_path / "c.jsonl.gz"))
    usable = [c for c in cuts if c.id not in {i for some in module.dropped.ids.values() for i in some}]
    assert survey.utterances == len(usable) < 40 and module.unknown == {"é": 1}
    assert survey.tokens == sum(len(tokenizer.encode([c.supervisions[0].text])[0]) for c in usable)
    assert abs(survey.seconds - sum(c.duration for c in usable)) < 1e-6


def test_tokens_need_two_frames_more():
    class FakeTokenizer:
        unk_id = 2

        def encode(self, texts):
            return [[5] * len(text) for text in texts]

    keep = CutFilter(options(), FakeTokenizer(), DropReport())
    frames = ((100 - 7) // 2 + 1) // 2  # of one second: 23
    cuts = [make_cut(f"{n}", "x.flac", 16000, 16000, "a" * n) for n in (frames - 2, frames - 1)]
    assert keep.count_tokens(cuts) == [frames - 2, None]


def test_batches_respect_the_limit_and_share_lengths(corpora):
    stream = open_stream(lazy(corpora, "b"), None)
    bins = duration_bins(stream, 4)
    assert len(bins) == 3
    batches = [[load_cut(r) for r in refs] for _, refs in BucketSampler(stream, 1, 20.0, bins)]
    assert all(len(b) * max(c.duration for c in b) <= 20.0 for b in batches) and sum(map(len, batches)) == 60
    padding = [1 - sum(c.duration for c in b) / (len(b) * max(c.duration for c in b)) for b in batches]
    mixed = [[load_cut(r).duration for r in refs] for _, refs in BucketSampler(stream, 1, 20.0, [])]
    assert np.mean(padding) < 0.15 < np.mean([1 - sum(b) / (len(b) * max(b)) for b in mixed])
    full = [refs for _, refs in BucketSampler(stream, 1, 20.0, bins, drop_last=True)]
    assert len(full) < len(batches) and all(len(refs) >= 3 for refs in full)


def test_a_cut_longer_than_a_batch_is_one_alone(corpora):
    stream = open_stream(lazy(corpora, "c"), None)
    assert [len(refs) for _, refs in BucketSampler(stream, 1, 0.5, [])] == [1] * 10


def test_without_shuffling_the_order_is_that_of_the_manifest(corpora):
    stream = open_stream(lazy(corpora, "a"), None)
    got = [load_cut(r).id for _, refs in BucketSampler(stream, None, 10.0, []) for r in refs]
    assert got == [f"a{i:02d}" for i in range(30)]


def test_batches_at_hand_at_the_same_time_are_alike(corpora):
    stream = open_stream(lazy(corpora, "b"), None)
    bins = duration_bins(stream, 3)
    bucket = [
        int(np.searchsorted(bins, load_cut(refs[0]).duration))
        for _, refs in BucketSampler(stream, 1, 10.0, bins, drop_last=True, bucket_run=2)
    ]
    pairs = list(zip(bucket[::2], bucket[1::2]))
    assert (
        sum(a == b for a, b in pairs) >= len(pairs) - 2 and len(set(bucket)) == 3
    )  # but for where a bucket runs out


@pytest.fixture(scope="module")
def shar(feature_cuts, tmp_path_factory):
    """The cuts with features as Shar, 6 shards."""
    folder = tmp_path_factory.mktemp("shar") / "train"
    write_shar.main(
        ["--cuts", str(feature_cuts), "--shar-dir", str(folder), "--shard-size", "7", "--nj", "2"]
    )
    return folder


def test_shar_holds_the_same_and_lhotse_reads_it(feature_cuts, shar):
    want = {c.id: c for c in CutSet.from_file(feature_cuts)}
    for got in (
        CutSet.from_shar(in_dir=shar),
        [load_cut(ref) for _, ref in open_stream(open_shar(shar), None).items()],
    ):
        cuts = list(got)
        assert [c.id for c in cuts] == list(want)
        assert all(np.array_equal(c.load_features(), want[c.id].load_features()) for c in cuts)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_on_shar_resumes_exactly_and_shuffles_shards(shar, workers):
    kwargs = dict(num_workers=workers, enable_spec_aug=False)
    cuts = open_shar(shar)
    whole = list(AsrDataModule(options(**kwargs)).train_dataloader(cuts, 1))
    rest = list(AsrDataModule(options(**kwargs)).train_dataloader(open_shar(shar), 1, skip_batches=4))
    assert sorted(sum(map(ids, whole), [])) == sorted(c.id for c in cuts)
    assert len(rest) == len(whole) - 4 and all(map(same, whole[4:], rest))
    stream = open_stream(cuts, None, seed=1)
    assert names(stream, 1) == names(stream, 1) != names(stream, 2) and sorted(names(stream, 1)) == sorted(
        names(stream, 2)
    )


def test_ranks_share_shar(shar):
    whole = list(AsrDataModule(options()).train_dataloader(open_shar(shar), 1, bucket_run=2))
    parts = [
        list(AsrDataModule(options(), rank=r, world_size=2).train_dataloader(open_shar(shar), 1))
        for r in (0, 1)
    ]
    assert all(map(same, parts[0], whole[0::2])) and all(map(same, parts[1], whole[1::2]))
    assert sum(map(len, parts)) == len(whole)


def test_audio_in_shar(audio_cuts, tmp_path):
    write_shar.main(
        ["--cuts", str(audio_cuts), "--shar-dir", str(tmp_path / "s"), "--shard-size", "25", "--nj", "1"]
    )
    want = {c.id: c.load_audio() for c in CutSet.from_file(audio_cuts)}
    stream = open_stream(open_shar(tmp_path / "s"), None)
    for (_, ref), (_, fast) in zip(stream.items(), stream.with_speed(1.1).items()):
        cut = load_cut(ref)
        assert np.abs(cut.load_audio() - want[cut.id]).max() < 1e-4
        assert load_cut(fast).load_audio().shape[1] == pytest.approx(want[cut.id].shape[1] / 1.1, abs=1)


def test_another_speed_drops_stored_features_quietly(feature_cuts, audio_cuts, tmp_path, caplog):
    stored = CutSet.from_file(feature_cuts)[0].features
    copies = (
        (cut, fastcopy(stored, recording_id=cut.recording_id, duration=cut.duration))
        for cut in CutSet.from_file(audio_cuts)
    )
    cuts = [fastcopy(cut, features=features) for cut, features in copies]
    write_cuts(cuts, tmp_path / "both.jsonl.gz")
    for source in (lazy(tmp_path, "both"), CutSet.from_cuts(cuts)):
        for _, ref in open_stream(source, None).with_speed(0.9).items():
            cut = load_cut(ref)
            assert not cut.has_features and cut.id.endswith("_sp0.9")
    assert not caplog.text


def test_writing_shar_goes_on_after_a_crash(feature_cuts, shar, tmp_path, monkeypatch):
    arguments = [
        "--cuts",
        str(feature_cuts),
        "--shar-dir",
        str(tmp_path / "s"),
        "--shard-size",
        "7",
        "--nj",
        "1",
    ]
    replace, calls = __import__("os").replace, []

    def dies(source, target):
        calls.append(source)
        if len(calls) == 8:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("asr_core.data.shar.os.replace", dies)
    with pytest.raises(SystemExit):
        write_shar.main(arguments)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not complete"):
        open_shar(tmp_path / "s")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").glob("cuts.*")}
    assert 1 <= len(kept) < 6
    write_shar.main(arguments)
    assert (
        all(p.stat().st_mtime_ns == stamp for p, stamp in kept.items())
        and shar_record(tmp_path / "s").is_file()
    )
    got = [c.id for c in open_shar(tmp_path / "s")]
    assert got == [c.id for c in open_shar(shar)]


def test_writing_shar_removes_nothing_that_it_did_not_write(feature_cuts, tmp_path, capsys):
    arguments = ["--cuts", str(feature_cuts), "--nj", "1", "--shar-dir"]
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora/precious").write_text("x")
    with pytest.raises(SystemExit):
        write_shar.main([*arguments, str(tmp_path / "corpora")])
    assert "corpora is not empty, and holds no Shar of this program" in capsys.readouterr().err
    assert (tmp_path / "corpora/precious").is_file()
    for _ in range(2):  # what was removed by hand is written again
        write_shar.main([*arguments, str(tmp_path / "s")])
        assert len(list(open_shar(tmp_path / "s"))) == 40
        __import__("shutil").rmtree(tmp_path / "s")


def test_the_survey_of_a_mixture_counts_what_is_drawn(feature_cuts, tmp_path):
    class OneToken:
        unk_id = 2

        def encode(self, texts):
            return [[5] for _ in texts]

    write_cuts(list(CutSet.from_file(feature_cuts).subset(first=5)), tmp_path / "few.jsonl.gz")
    kwargs = dict(use_mux=True, mux_cuts="train:1,few.jsonl.gz:1", manifest_dir=str(tmp_path))
    survey = AsrDataModule(options(**kwargs), 7, OneToken()).survey(CutSet.from_jsonl_lazy(feature_cuts))
    assert survey.tokens == survey.utterances < 40


def test_a_damaged_shard_costs_its_cuts_alone(shar, tmp_path):
    import shutil

    copy = tmp_path / "train"
    shutil.copytree(shar, copy)
    (copy / "features.000001.tar").write_bytes(b"nonsense" * 200)
    module = AsrDataModule(options(enable_spec_aug=False))
    got = sum(map(ids, module.train_dataloader(open_shar(copy), 1)), [])
    assert len(got) == 33 and module.dropped.total == 7


def test_a_corpus_reads_parts_from_shar_where_they_are(shar, feature_cuts):
    class Toy(Corpus):
        name = "toy"

    params = {"manifest_dir": str(feature_cuts.parent), "shar_dir": str(shar.parent)}
    assert len(list(Toy(params).train_cuts())) == 40
    with pytest.raises(UserError, match="--shar-dir"):
        Toy({**params, "shar_dir": str(shar.parent / "none")}).train_cuts()
    with pytest.raises(UserError, match="toy_cuts_valid"):
        Toy(params).valid_cuts()


def test_skipping_loads_nothing(feature_cuts, monkeypatch):
    module = AsrDataModule(options())
    cuts = CutSet.from_jsonl_lazy(feature_cuts)
    module.survey(cuts)
    monkeypatch.setattr(streams, "view_of_line", None)  # would fail if a line were parsed
    sampler = module.train_dataloader(cuts, 1, skip_batches=5).sampler
    began = time.perf_counter()
    assert next(iter(sampler))[0] == 5 and time.perf_counter() - began < 1.0
