"""What processes compare of their data: every file that they read, by its place and name."""

import gzip
import json
from types import SimpleNamespace

import fake_run
import pytest
from lhotse import CutSet

from asr_core.data.mux import other_corpora
from asr_core.data.open_cuts import open_manifest, open_shar
from asr_core.data.options import DataOptions
from asr_core.data.stream import files_of
from asr_core.training import loop
from asr_core.training.data_facts import facts_of_data
from asr_core.training.distributed.agreement import refuse_differences
from asr_core.utils.errors import UserError


def write(path, *ids):
    """Write lines that name cuts; nothing reads more of them here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.GzipFile(path, "wb", mtime=0) as f:
        f.write("".join(json.dumps({"id": name}) + "\n" for name in ids).encode())
    return path


def write_machine(folder):
    """Write all that one machine holds, into a folder of its own."""
    write(folder / "train.jsonl.gz", "a", "b")
    for shard in range(3):
        write(folder / f"shar/cuts.{shard:06d}.jsonl.gz", f"s{shard}")
        (folder / f"shar/recording.{shard:06d}.tar").write_bytes(b"0" * 1000)
    for name in ("valid", "other", "noise"):
        write(folder / f"{name}.jsonl.gz", name)
    return folder


def facts(folder, **changes):
    opts = DataOptions(
        manifest_dir=str(folder),
        noise_manifest=str(folder / "noise.jsonl.gz"),
        use_mux=True,
        mux_cuts="train:1,other.jsonl.gz:2",
        **changes,
    )
    train = open_manifest(folder / "train.jsonl.gz") + open_shar(folder / "shar")
    sets = {
        "the training cuts": train.filter(bool).map(str),
        "the validation cuts": open_manifest(folder / "valid.jsonl.gz"),
    }
    return facts_of_data(sets, opts)


@pytest.fixture
def machines(tmp_path):
    return write_machine(tmp_path / "one"), write_machine(tmp_path / "two")


@pytest.mark.parametrize(
    "name, what",
    [
        ("train.jsonl.gz", "file 1 of the training cuts: train.jsonl.gz "),
        ("shar/cuts.000001.jsonl.gz", "file 4 of the training cuts: cuts.000001.jsonl.gz "),
        (
            "shar/recording.000002.tar",
            "file 7 of the training cuts: recording.000002.tar 1000 bytes on rank 0",
        ),
        ("valid.jsonl.gz", "file 1 of the validation cuts: valid.jsonl.gz "),
        ("other.jsonl.gz", "file 1 of other.jsonl.gz of --mux-cuts: other.jsonl.gz "),
        ("noise.jsonl.gz", "file 1 of the noise: noise.jsonl.gz "),
    ],
)
def test_the_first_file_that_differs_is_named(machines, name, what):
    one, two = machines
    refuse_differences([facts(one), facts(two)])  # where the data are does not count
    (two / name).write_bytes(b"other")
    with pytest.raises(UserError) as raised:
        refuse_differences([facts(one), facts(two)])
    line = str(raised.value)
    assert f"the processes differ in {what}" in line and line.endswith("on rank 1; make them the same")


def test_missing_shards_and_noise_are_differences(machines):
    one, two = machines
    (two / "shar/cuts.000002.jsonl.gz").unlink()
    (two / "shar/recording.000002.tar").unlink()
    with pytest.raises(UserError, match="the number of files of the training cuts: 7 on rank 0, 5 on rank 1"):
        refuse_differences([facts(one), facts(two)])
    three = write_machine(one.parent / "three")
    with pytest.raises(UserError, match="the number of files of the noise: 1 on rank 0, 0 on rank 1"):
        refuse_differences([facts(one), facts(three, enable_musan=False)])


def test_cuts_in_memory_have_no_files():
    assert files_of(CutSet.from_cuts([])) == [] and files_of([]) == []
    assert other_corpora(DataOptions(mux_cuts="train:1,train:2")) == {}


def test_processes_with_other_validation_cuts_do_not_train(machines, tmp_path):
    """The comparison takes place before the model is built."""

    class Pair:
        """This process, and another whose validation cuts differ."""

        rank, local_rank, size, is_main = 0, 0, 2, True

        def gather(self, value):
            assert "file 1 of the validation cuts" in value
            return [value, {**value, "file 1 of the validation cuts": "valid.jsonl.gz 0123"}]

    class Unbuilt(fake_run.FakeRecipe):
        def build_model(self):
            raise AssertionError("it is too early")

    one, _ = machines
    corpus = SimpleNamespace(
        train_cuts=lambda: open_manifest(one / "train.jsonl.gz"),
        valid_cuts=lambda: open_manifest(one / "valid.jsonl.gz"),
    )
    recipe = Unbuilt(fake_run.make_params(tmp_path / "exp", manifest_dir=str(one)), corpus)
    with pytest.raises(
        UserError, match=r"differ in file 1 of the validation cuts: valid.jsonl.gz \w+ on rank 0"
    ):
        loop.train(recipe, Pair())
