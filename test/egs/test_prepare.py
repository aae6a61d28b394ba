"""The recipes' preparation on tiny data: output, repetition, resumption and mistakes."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from manifests import read_cuts

from asr_core.data.manifest import make_cut, write_cuts

EGS = Path(__file__).resolve().parents[2] / "egs"


def prepare(recipe, *arguments, status=0, egs=EGS):
    """Run a recipe's prepare.sh with this interpreter; returns what it printed."""
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(EGS.parent), "OMP_NUM_THREADS": "1"}
    command = ["bash", "./prepare.sh", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=egs / recipe / "ASR", env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def audio_of(manifest):
    return {c.id: c.load_audio() for c in read_cuts(manifest)}


@pytest.fixture(scope="module")
def synthesised(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    data = tmp_path_factory.mktemp("synth") / "data"
    sizes = ["--num-train", 55, "--num-valid", 2, "--num-test", 4, "--num-noise", 3]
    prepare("digits", "--data-dir", data, *sizes)
    return data, sizes


def test_synthesised_digits(synthesised):
    data, _ = synthesised
    parts = {
        part: list(read_cuts(data / "fbank" / f"synth_cuts_{part}.jsonl.gz"))
        for part in ("train", "valid", "test")
    }
    assert [len(cuts) for cuts in parts.values()] == [56, 2, 4]
    wordless = [parts["train"].pop(), *read_cuts(data / "fbank" / "synth_cuts_noise.jsonl.gz")]
    assert [c.id for c in wordless] == [
        "synth-train-noise-00000",
        *(f"synth-noise-0000{i}" for i in range(3)),
    ]
    assert not any(c.supervisions[0].text for c in wordless) and all(1 <= c.duration < 5 for c in wordless)
    variants = {part: {c.supervisions[0].speaker.split("+")[1] for c in cuts} for part, cuts in parts.items()}
    assert not variants["train"] & variants["test"]
    texts = {part: {c.supervisions[0].text for c in cuts} for part, cuts in parts.items()}
    assert not texts["train"] & (texts["valid"] | texts["test"])
    for cut in parts["test"]:
        assert 3 <= len(cut.supervisions[0].text.split()) <= 7 and 0.5 < cut.duration < 8
        assert cut.load_features().shape == (cut.num_frames, 80)
    assert (data / "lang_bpe_34" / "tokens.txt").read_text().count("\n") == 34


def test_synthesis_depends_on_the_seed_alone(synthesised, tmp_path):
    data, _ = synthesised
    prepare(
        "digits",
        "--data-dir",
        tmp_path,
        "--num-train",
        52,
        "--num-valid",
        2,
        "--num-test",
        3,
        "--stop-stage",
        1,
        "--nj",
        1,
    )
    for part in ("train", "valid", "test"):
        name = f"manifests/synth_cuts_{part}.jsonl.gz"
        before, now = audio_of(data / name), audio_of(tmp_path / name)
        assert set(now) <= set(before) and all(np.array_equal(now[i], before[i]) for i in now)


def test_repeating_does_nothing_and_other_settings_start_anew(synthesised):
    data, sizes = synthesised
    watched = [
        data / "manifests" / "synth_cuts_test.jsonl.gz",
        data / "fbank" / "synth_cuts_test.jsonl.gz",
        data / "lang_bpe_34" / "bpe.model",
    ]
    stamps = [p.stat().st_mtime_ns for p in watched]
    assert prepare("digits", "--data-dir", data, *sizes).count("already done") == 3
    assert [p.stat().st_mtime_ns for p in watched] == stamps
    watched[1].unlink()  # as after a crash in stage 3: one part is missing and the marker was not written
    marker = data / "fbank" / ".synth.done"
    marker.rename(data / "fbank" / ".synth.done.started")
    features = ["--stage", 3, "--stop-stage", 3]
    told = prepare("digits", "--data-dir", data, *sizes, *features)
    assert "synth_cuts_train.jsonl.gz exists; skipped" in told and watched[1].exists() and marker.exists()
    prepare("digits", "--data-dir", data, *sizes, *features, "--speed-perturb", 1)
    assert len(read_cuts(data / "fbank" / "synth_cuts_train.jsonl.gz")) == 168


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--foo", "1"], "unknown option --foo"),
        (["--python", "x"], "unknown option --python"),
        (["--nj"], "--nj needs a value"),
        (["--nj", "two"], "--nj must be a whole number"),
        (["train.tsv"], "unexpected argument train.tsv"),
    ],
)
def test_wrong_options_end_with_one_line(arguments, words):
    told = prepare("digits", *arguments, status=2)
    assert words in told and told.count("\n") == 1


@pytest.mark.parametrize("recipe", ["digits", "yesno", "custom"])
def test_help(recipe):
    assert "--stop-stage" in prepare(recipe, "--help")


def test_mistakes_about_corpora(tmp_path):
    assert "unknown corpus 'x'" in prepare("digits", "--corpus", "x", status=1)
    told = prepare(
        "digits",
        "--corpus",
        "fsdd",
        "--stage",
        1,
        "--dl-dir",
        tmp_path,
        "--data-dir",
        tmp_path / "d",
        status=1,
    )
    assert "error: no archive" in told and "Traceback" not in told
    (tmp_path / "free-spoken-digit-dataset-master.tar.gz").write_bytes(b"\x1f\x8bnonsense")
    told = prepare("digits", "--corpus", "fsdd", "--dl-dir", tmp_path, "--data-dir", tmp_path / "d", status=1)
    assert "is damaged" in told and "Traceback" not in told
    (tmp_path / "waves_yesno.tar.gz").write_bytes(b"\x1f\x8bnonsense")
    assert "is damaged" in prepare("yesno", "--dl-dir", tmp_path, "--data-dir", tmp_path / "y", status=1)


def fake_fsdd(path):
    """An archive of the dataset's layout: each recording is a tone whose pitch encodes the digit."""
    with tarfile.open(path / "free-spoken-digit-dataset-master.tar.gz", "w:gz", compresslevel=1) as archive:
        for digit in range(10):
            content = io.BytesIO()
            soundfile.write(
                content,
                0.5 * np.sin(2 * np.pi * (200 + 100 * digit) * np.arange(1600) / 8000),
                8000,
                format="WAV",
            )
            for name in (f"{digit}_{speaker}_{index}.wav" for speaker in "abcdef" for index in range(50)):
                member = tarfile.TarInfo(f"free-spoken-digit-dataset-master/recordings/{name}")
                member.size = content.getbuffer().nbytes
                content.seek(0)
                archive.addfile(member, content)


def test_composed_digits_sound_as_their_transcripts_say(tmp_path):
    fake_fsdd(tmp_path)
    sizes = ["--num-train", 8, "--num-valid", 2, "--num-test", 2]
    prepare(
        "digits",
        "--corpus",
        "fsdd",
        "--dl-dir",
        tmp_path,
        "--data-dir",
        tmp_path / "d",
        *sizes,
        "--stop-stage",
        1,
    )
    words = "zero one two three four five six seven eight nine".split()
    for cut in read_cuts(tmp_path / "d" / "manifests" / "fsdd_cuts_train.jsonl.gz"):
        digits = [words.index(w) for w in cut.supervisions[0].text.split()]
        samples = cut.load_audio()[0]
        loud = np.convolve(np.abs(samples), np.ones(160) / 160, "same") > 0.05
        starts = np.flatnonzero(np.diff(np.r_[0, loud.astype(int)]) == 1)
        assert len(starts) == len(digits) and 3 <= len(digits) <= 7
        for start, digit in zip(starts, digits):
            pitch = np.argmax(np.abs(np.fft.rfft(samples[start + 200 : start + 2800]))) * 16000 / 2600
            assert abs(pitch - (200 + 100 * digit)) < 10
        placed = cut.supervisions[0].alignment["word"]
        assert [item.symbol for item in placed] == cut.supervisions[0].text.split()
        assert np.allclose([item.start for item in placed], starts / 16000, atol=0.01)
        silences = np.diff(starts) / 16000 - 0.2
        assert np.all((silences > 0.03) & (silences < 0.27))


def test_yesno(tmp_path):
    folder = tmp_path / "src" / "waves_yesno"
    folder.mkdir(parents=True)
    for i in range(60):
        soundfile.write(folder / ("_".join(f"{i:08b}") + ".wav"), 0.1 * np.ones(8000), 8000)
    (folder / "README").write_text("no recording")
    with tarfile.open(tmp_path / "waves_yesno.tar.gz", "w:gz") as archive:
        archive.add(folder, "waves_yesno")
    prepare("yesno", "--dl-dir", tmp_path, "--data-dir", tmp_path / "d")
    parts = {
        part: read_cuts(tmp_path / "d" / "fbank" / f"yesno_cuts_{part}.jsonl.gz")
        for part in ("train", "valid", "test")
    }
    assert [len(cuts) for cuts in parts.values()] == [81, 3, 30]
    assert parts["test"][0].supervisions[0].text == "NO NO NO NO NO NO NO YES"
    assert parts["test"][0].num_frames == 100


def test_custom(tmp_path):
    for i in range(4):
        soundfile.write(
            tmp_path / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal((22050, 2)), 22050
        )
    (tmp_path / "train.tsv").write_text("".join(f"{i}.wav\tWord number {i}\n" for i in range(4)))
    (tmp_path / "dev.tsv").write_text("0.wav\tNumber\nbad line\n")
    arguments = [
        "--train",
        tmp_path / "train.tsv",
        "--valid",
        tmp_path / "dev.tsv",
        "--data-dir",
        tmp_path / "d",
    ]
    assert "give --train and --valid" in prepare("custom", status=1)
    assert "dev.tsv:2" in prepare("custom", *arguments, status=1)
    told = prepare(
        "custom", *arguments, "--on-bad-line", "skip", "--normalize", "lower", "--noise-dir", tmp_path
    )
    assert "dev.tsv:2" in told and "does not allow 500 unigram tokens" in told
    cuts = read_cuts(tmp_path / "d" / "fbank" / "custom_cuts_train.jsonl.gz")
    assert [c.supervisions[0].text for c in cuts] == [f"word number {i}" for i in range(4)]
    assert cuts[0].load_features().shape == (100, 80)
    assert len(read_cuts(tmp_path / "d" / "fbank" / "musan_cuts.jsonl.gz")) == 4


def in_shell(folder, text):
    """Run shell text with the shared functions in ``folder``; returns its status and what it printed."""
    command = ["bash", "-euo", "pipefail", "-c", f'. "{EGS}/shared/prepare_lib.sh"\n{text}']
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_empty_folder_is_refused_and_an_option_that_is_empty_by_default_is_not():
    for option in ("--data-dir=", "--dl-dir="):
        told = prepare("digits", option, status=2)
        assert f"{option[:-1]} must not be empty" in told and told.count("\n") == 1
    assert "unknown corpus 'x'" in prepare("digits", "--num-valid=", "--corpus", "x", status=1)


def test_only_what_a_step_made_is_ever_removed(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "precious").touch()
    step = 'is_done meta/.x.done "$settings" foreign made files_* || { mkdir -p made; touch files_1 foreign/more; }\n'
    first, second = (f"settings={n}\n{step}" for n in (1, 2))
    assert in_shell(tmp_path, f"{first}mark_done meta/.x.done 1")[0] == 0
    assert "already done" in in_shell(tmp_path, first)[1]
    status, told = in_shell(tmp_path, second)
    assert status == 1 and "foreign was made with other settings, or not by this script" in told
    assert (tmp_path / "foreign" / "precious").exists() and (tmp_path / "made").is_dir()
    (tmp_path / "foreign").rename(tmp_path / "elsewhere")
    (tmp_path / "made" / "old").touch()
    (tmp_path / "files_1").write_text("old")
    assert in_shell(tmp_path, f"mkdir foreign\n{second}")[0] == 1  # another one of the same name
    (tmp_path / "foreign").rmdir()
    assert in_shell(tmp_path, f"{second.replace('foreign/more', 'files_2')}")[0] == 0
    assert not (tmp_path / "made" / "old").exists() and (tmp_path / "files_1").read_text() == ""


def test_features_that_lack_recordings_are_not_marked_as_done(tmp_path):
    cuts = []
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(16000), 16000)
        cuts.append(make_cut(f"u{i}", tmp_path / f"{i}.wav", 16000, 16000, "one"))
    write_cuts(cuts, tmp_path / "m" / "toy_cuts_test.jsonl.gz")
    (tmp_path / "2.wav").rename(tmp_path / "2.away")
    step = f'python="{sys.executable}" manifests=m fbank=f nj=1\nstore_features toy test 7 --max-unreadable 0.3\n'
    env = f'export PYTHONPATH="{EGS.parent}"\n'
    status, told = in_shell(tmp_path, env + step)
    assert status == 0 and "1 recordings were left out, see f/toy_left_out_test.txt; the same command" in told
    assert (
        not (tmp_path / "f" / ".toy.done").exists() and (tmp_path / "f" / "toy_cuts_test.jsonl.gz").is_file()
    )
    (tmp_path / "2.away").rename(tmp_path / "2.wav")
    assert "are tried again" in in_shell(tmp_path, env + step)[1] and (tmp_path / "f" / ".toy.done").is_file()
    assert [c.id for c in read_cuts(tmp_path / "f" / "toy_cuts_test.jsonl.gz")] == ["u0", "u1", "u2", "u3"]
    assert "already done" in in_shell(tmp_path, env + step)[1]


def test_a_marker_of_an_earlier_version_removes_nothing(tmp_path):
    (tmp_path / "synth").mkdir()
    (tmp_path / ".x.done").write_text("1\n")
    status, told = in_shell(tmp_path, "is_done .x.done 2 synth")
    assert (
        status == 1 and "error: synth was made with other settings" in told and (tmp_path / "synth").is_dir()
    )


def test_paths_may_have_spaces(tmp_path):
    copy = tmp_path / "a tree"
    shutil.copytree(
        EGS, copy / "egs", ignore=shutil.ignore_patterns("data", "download", "exp*", "__pycache__")
    )
    lists = tmp_path / "my lists"
    lists.mkdir()
    rng = np.random.default_rng(0)
    for name in ("train set", "valid set"):
        soundfile.write(lists / f"{name}.wav", 0.1 * rng.standard_normal(16000), 16000)
        (lists / f"{name}.tsv").write_text(f"{name}.wav\tone two\n")
    told = prepare(
        "custom",
        *(
            "--train",
            lists / "train set.tsv",
            "--valid",
            lists / "valid set.tsv",
            "--data-dir",
            tmp_path / "my data",
        ),
        *("--noise-dir", lists, "--model-type", "char"),
        egs=copy / "egs",
    )
    assert "Done." in told and (tmp_path / "my data" / "fbank" / "musan_cuts.jsonl.gz").is_file()
    archives = tmp_path / "my archives"
    archives.mkdir()
    with tarfile.open(archives / "waves_yesno.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("other"), io.BytesIO())
    told = prepare("yesno", "--dl-dir", archives, "--data-dir", tmp_path / "y y", status=1, egs=copy / "egs")
    assert f"{archives}/waves_yesno.tar.gz is damaged or has no folder waves_yesno" in told
