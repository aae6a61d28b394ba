"""Augmentation as the reference has it, and every data option has an effect."""

import dataclasses
import random

import pytest
import torch
from lhotse import CutSet
from lhotse.cut import MixedCut

from asr_core.data.augment import JoinCuts, MixNoise, input_transforms, noise_manifest
from asr_core.data.manifest import write_cuts
from asr_core.data.module import AsrDataModule
from asr_core.data.options import DataOptions
from asr_core.utils.errors import UserError


def test_noise_is_mixed_into_half_of_the_cuts_10_to_20_db_below(feature_cuts):
    cuts = CutSet.from_file(feature_cuts)
    noise = cuts.subset(first=5).map(lambda c: c.with_id(f"noise-{c.id}")).drop_supervisions().to_eager()
    mixed = [c for seed in range(10) for c in MixNoise(noise)(cuts, random.Random(seed))]
    noisy = [c for c in mixed if isinstance(c, MixedCut)]
    assert 0.4 < len(noisy) / len(mixed) < 0.6
    ratios = [track.snr for cut in noisy for track in cut.tracks[1:]]
    assert min(ratios) >= 10 and max(ratios) <= 20 and max(ratios) - min(ratios) > 8
    assert {c.id for c in mixed} == {c.id for c in cuts}


def test_spec_augment_is_the_references(feature_cuts):
    (augment,) = input_transforms(DataOptions())
    got = {name: getattr(augment, name) for name in augment.state_dict()}
    want = dict(
        time_warp_factor=80,
        num_feature_masks=2,
        features_mask_size=27,
        num_frame_masks=10,
        frames_mask_size=100,
        max_frames_mask_fraction=0.15,
        p=0.9,
    )
    assert got == want
    assert input_transforms(DataOptions(enable_spec_aug=False)) == []
    with pytest.raises(UserError, match="AudioSamples"):
        input_transforms(DataOptions(input_strategy="AudioSamples"))


@pytest.mark.parametrize("factor, warps", [(0, False), (80, True)])
def test_time_warp_can_be_turned_off(factor, warps):
    (augment,) = input_transforms(DataOptions(spec_aug_time_warp_factor=factor))
    x = torch.randn(8, 1000, 80, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    segments = torch.tensor([[i, 0, 1000] for i in range(8)], dtype=torch.int32)
    changed = [
        row[row != before] for row, before in zip(augment(x.clone(), supervision_segments=segments), x)
    ]
    values = [
        len(torch.unique(row)) for row in changed
    ]  # masks put a mean everywhere, warping something else
    assert max(values) > 1000 if warps else 1 <= max(values) <= 3


@pytest.mark.parametrize("factor, gap", [(1.0, 1.0), (3.0, 0.1)])
def test_joined_cuts_are_as_long_as_the_factor_allows(feature_cuts, factor, gap):
    cuts = CutSet.from_file(feature_cuts)
    joined = list(JoinCuts(factor, gap)(cuts.sort_by_duration(ascending=False), random.Random(0)))
    assert (
        len(joined) < 40 and max(c.duration for c in joined) <= factor * max(c.duration for c in cuts) + 1e-6
    )
    assert sum(len(c.supervisions) for c in joined) == 40
    pairs = [c for c in joined if len(c.supervisions) == 2]
    for cut in pairs:
        first, second = sorted(cut.supervisions, key=lambda s: s.start)
        assert second.start - first.end == pytest.approx(gap, abs=0.011)


def test_noise_of_the_manifests_does_where_features_are_computed(feature_cuts, tmp_path):
    write_cuts(list(CutSet.from_file(feature_cuts))[:3], tmp_path / "manifests/musan_cuts.jsonl.gz")
    folder = str(tmp_path / "fbank")
    assert noise_manifest(DataOptions(manifest_dir=folder)) is None
    found = noise_manifest(DataOptions(manifest_dir=folder, on_the_fly_feats=True))
    assert found == tmp_path / "manifests/musan_cuts.jsonl.gz"


# What batches are made with before and after a change of each option.
ADAPTIVE = {"spec_aug": "adaptive"}
MUX = {"use_mux": True, "mux_cuts": "train:1,train:1"}
CHANGES = {
    "max_duration": ({}, 9.0),
    "bucketing_sampler": ({}, False),
    "num_buckets": ({}, 2),
    "concatenate_cuts": ({"gap": 0.1, "bucketing_sampler": False}, True),
    "duration_factor": ({"gap": 0.1, "concatenate_cuts": True}, 2.0),
    "gap": ({"gap": 0.1, "concatenate_cuts": True, "duration_factor": 3.0}, 0.3),
    "shuffle": ({}, False),
    "drop_last": ({}, True),
    "return_cuts": ({}, False),
    "enable_spec_aug": ({}, False),
    "spec_aug_time_warp_factor": ({}, 0),
    "spec_aug": ({}, "adaptive"),
    "spec_aug_time_masks": (ADAPTIVE, 3),
    "spec_aug_time_mask_ratio": (ADAPTIVE, 0.2),
    "spec_aug_time_mask_max": (ADAPTIVE, 1),
    "spec_aug_freq_masks": (ADAPTIVE, 1),
    "spec_aug_freq_mask_max": (ADAPTIVE, 10),
    "spec_aug_fill": (ADAPTIVE, "mean"),
    "spec_aug_prob": (ADAPTIVE, 0.2),
    "tail_silence_prob": ({}, 1.0),
    "enable_musan": ({}, True),
    "noise_manifest": ({"enable_musan": True}, "other.jsonl.gz"),
    "speed_perturb": ({"on_the_fly_feats": True}, True),
    "min_duration": ({}, 1.0),
    "max_utt_duration": ({}, 1.0),
    "sample_rate": ({"on_the_fly_feats": True}, 8000),
    "num_mel_bins": ({"on_the_fly_feats": True}, 40),
    "feature_type": ({"on_the_fly_feats": True}, "log-mel"),
    "use_mux": ({**MUX, "use_mux": False}, True),
    "mux_cuts": (MUX, "train:1,other.jsonl.gz:1"),
    "mux_stop_early": ({**MUX, "mux_cuts": "train:1,train:9"}, False),
}
# Tested with corpora and in test_module.py, test_cut_rules.py, test_device_features.py, and the gains in
# test/training/test_plateau.py.
OTHERS = {
    "manifest_dir",
    "shar_dir",
    "num_workers",
    "on_the_fly_feats",
    "features_on_device",
    "input_strategy",
    "channel",
    "empty_text",
    "join_supervisions",
    "allow_commands",
    "max_unreadable",
    "gain_prob",
    "gain_low",
    "gain_high",
}


def fingerprint(path, **kwargs):
    """Everything that an epoch of training sees."""
    usual = dict(
        max_duration=6.0,
        num_buckets=3,
        num_workers=0,
        drop_last=False,
        enable_musan=False,
        manifest_dir=str(path.parent),
    )
    module = AsrDataModule(DataOptions(**{**usual, **kwargs}), 3)
    return [
        (sorted(batch["supervisions"]), batch["supervisions"]["text"], batch["inputs"].numpy().tobytes())
        for batch in module.train_dataloader(CutSet.from_jsonl_lazy(path), 1)
    ]


@pytest.fixture(scope="module")
def folder(feature_cuts, tmp_path_factory):
    """Training cuts, noise, and other cuts."""
    made = tmp_path_factory.mktemp("options")
    cuts = list(CutSet.from_file(feature_cuts))
    for name, some in (("train", cuts), ("musan_cuts", cuts[:5]), ("other", cuts[9:])):
        write_cuts(some, made / f"{name}.jsonl.gz")
    return made


@pytest.mark.parametrize("name", CHANGES)
def test_no_data_option_does_nothing(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    base, value = CHANGES[name]
    before = fingerprint(folder / "train.jsonl.gz", **base)
    assert before == fingerprint(folder / "train.jsonl.gz", **base)
    assert before != fingerprint(folder / "train.jsonl.gz", **{**base, name: value})


def test_every_data_option_is_tried():
    assert set(CHANGES) | OTHERS == {f.name for f in dataclasses.fields(DataOptions)}
