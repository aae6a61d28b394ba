"""Manifests that would run something when they are read are refused, everywhere."""

import json

import pytest
from batches import data_options
from lhotse import CutSet

from asr_core.bin import compute_fbank, describe_manifest, prepare_noise, validate_manifest, write_shar
from asr_core.data.augment import cut_transforms
from asr_core.data.module import AsrDataModule
from asr_core.data.sources import check_sources
from asr_core.utils.errors import UserError


def audio_cut(tmp_path, kind="file", source="a.wav", **fields):
    """Return the data of a cut of one second."""
    recording = {
        "id": "r1",
        "sources": [{"type": kind, "channels": [0], "source": source.format(tmp_path / "ran")}],
        "sampling_rate": 16000,
        "num_samples": 16000,
        "duration": 1.0,
    }
    segment = {"id": "s1", "recording_id": "r1", "start": 0.0, "duration": 1.0, "channel": 0, "text": "one"}
    head = {"id": "c1", "start": 0.0, "duration": 1.0, "channel": 0, "supervisions": [segment]}
    return {**head, "recording": recording, **fields, "type": "MonoCut"}


DANGERS = [
    ("command", "touch {}; cat /nowhere"),
    ("url", "pipe:touch {}"),
    ("url", "https://nowhere.invalid/a.wav"),
    ("file", "pipe:touch {}"),
    ("file", "https://nowhere.invalid/a.wav"),
    ("file", "x; touch {}.sph"),
    ("file", "x' ; touch {} '.opus"),
    ("unheard", "of"),
]


@pytest.mark.parametrize("kind, source", DANGERS)
def test_no_program_runs_what_a_manifest_says(kind, source, tmp_path, capsys):
    cut = audio_cut(tmp_path, kind, source)
    for folder in ("manifests", "fbank"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "manifests/x_cuts_train.jsonl"
    path.write_text(json.dumps(cut) + "\n")
    recordings = tmp_path / "recordings.jsonl"
    recordings.write_text(json.dumps(cut["recording"]) + "\n")
    parts = tmp_path / "manifests/x_cuts_train.jsonl.gz"
    CutSet.from_file(path).to_file(parts)
    calls = [
        (validate_manifest, [str(path), "--read-data", "1"], path),
        (describe_manifest, [str(path)], path),
        (write_shar, ["--cuts", str(path), "--shar-dir", str(tmp_path / "shar"), "--nj", "1"], path),
        (
            prepare_noise,
            ["--recordings", str(recordings), "--output", str(tmp_path / "n.jsonl.gz")],
            recordings,
        ),
        (
            compute_fbank,
            ["--src-dir", str(parts.parent), "--output-dir", str(tmp_path / "fbank"), "--prefix", "x"]
            + ["--parts", "train", "--nj", "1"],
            parts,
        ),
    ]
    for program, argv, named in calls:
        with pytest.raises(SystemExit) as e:
            program.main(argv)
        last = capsys.readouterr().err.splitlines()[-1]
        assert e.value.code == 1 and f"{named}:1: " in last and "--allow-commands 1" in last, (program, last)
    options = data_options(on_the_fly_feats=True, manifest_dir=str(tmp_path))
    for loader in ("train_dataloader", "test_dataloader"):
        arguments = (CutSet.from_jsonl_lazy(path), 1)[: 1 + (loader[:2] == "tr")]
        with pytest.raises(UserError, match="x_cuts_train.jsonl:1: c1: .*--allow-commands 1"):
            list(getattr(AsrDataModule(options), loader)(*arguments))
    with pytest.raises(UserError, match="--allow-commands 1"):
        list(AsrDataModule(options).test_dataloader(CutSet.from_file(path).to_eager()))
    with pytest.raises(UserError, match="--allow-commands 1"):
        cut_transforms(data_options(noise_manifest=str(path)))
    assert not list(tmp_path.glob("ran*"))


def test_commands_are_run_where_they_are_allowed(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "a.wav", [0.1, -0.1] * 8000, 16000)
    path = tmp_path / "cuts.jsonl"
    path.write_text(json.dumps(audio_cut(tmp_path, "command", f"cat {tmp_path}/a.wav")) + "\n")
    module = AsrDataModule(data_options(on_the_fly_feats=True, allow_commands=True))
    (batch,) = module.test_dataloader(CutSet.from_jsonl_lazy(path))
    assert batch["inputs"].shape[0] == 1
    validate_manifest.main([str(path), "--read-data", "1", "--allow-commands", "1"])


@pytest.mark.parametrize(
    "storage, path",
    [
        ("memory_raw", ""),
        ("kaldiio", "ark:touch x |"),
        ("lilcom_url", "s3://bucket"),
        ("numpy_files", "pipe:touch x;"),
        ("lilcom_chunky", "https://nowhere.invalid/x"),
        ("new_kind", "x"),
    ],
)
def test_features_and_arrays_of_any_depth_are_looked_at(storage, path, tmp_path):
    stored = {"storage_type": storage, "storage_path": path, "storage_key": "0"}
    for cut in (
        audio_cut(tmp_path, features=stored),
        audio_cut(tmp_path, custom={"more": [{"array": stored}]}),
        {"id": "m", "tracks": [{"cut": audio_cut(tmp_path, features=stored)}], "type": "MixedCut"},
    ):
        with pytest.raises(UserError, match="--allow-commands 1"):
            check_sources(cut)
        check_sources(cut, allow_commands=True)


@pytest.mark.parametrize(
    "source", ["a b/ü (1).wav", "2026-01-01T10:00.flac", "x.sph", "/data/a_b-c.sph", "x y.opus"]
)
def test_plain_files_are_fine(source, tmp_path):
    check_sources(audio_cut(tmp_path, "file", source))
    for storage in ("asr_core_flat", "lilcom_chunky", "numpy_files", "shar"):
        check_sources(audio_cut(tmp_path, features={"storage_type": storage, "storage_path": source}))
