"""prepare.sh of LibriSpeech on miniature corpora: all files that the recipe promises."""

import gzip
import importlib.util
import io
import tarfile

import numpy as np
import pytest
from lhotse import CutSet, RecordingSet, SupervisionSet
from librispeech_recipe import RECIPE, VOCAB, lay_out, run_prepare
from manifests import read_cuts

from asr_core.text.tokenizer import Tokenizer

TRAIN = ("train-clean-100", "train-clean-360", "train-other-500")
TEST = ("dev-clean", "dev-other", "test-clean", "test-other")


@pytest.fixture(scope="module")
def mini_libri(tmp_path_factory):
    """A prepared tiny mini LibriSpeech: (folder of the corpora, data folder, arguments, texts)."""
    root = tmp_path_factory.mktemp("mini_libri")
    texts = lay_out(root, {"train-clean-5": 6, "dev-clean-2": 3})
    arguments = [
        "--mini-libri",
        "true",
        "--dl-dir",
        root,
        "--data-dir",
        root / "data",
        "--vocab-sizes",
        "40 45",
        "--nj",
        1,
    ]
    run_prepare(*arguments, "--stage", 1, "--stop-stage", 5)
    return root, root / "data", arguments, texts


def test_mini_libri_prepares_in_seconds(mini_libri):
    _, data, _, texts = mini_libri
    cuts = read_cuts(data / "fbank/librispeech_cuts_train-clean-5.jsonl.gz")
    assert len(cuts) == 18 and {c.id.rsplit("_sp", 1)[-1] for c in cuts if "_sp" in c.id} == {"0.9", "1.1"}
    plain = [c for c in cuts if "_sp" not in c.id]
    assert [c.supervisions[0].text for c in plain] == texts["train-clean-5"]
    for cut in cuts:
        assert cut.load_features().shape == (cut.num_frames, 80)
    assert not (data / "fbank/librispeech_cuts_train-all-shuf.jsonl.gz").exists()
    assert (data / "fbank/librispeech_feats_dev-clean-2").is_dir() and (data / "fbank/musan_feats").is_dir()
    noise = read_cuts(data / "fbank/musan_cuts.jsonl.gz")
    assert (
        sorted({round(c.duration) for c in noise}) == [10] and len(noise) == 9
    )  # 13 s -> 10, 24 s -> 10 + 10, 4 s -> nothing
    for size in (40, 45):
        lang = data / f"lang_bpe_{size}"
        assert lang.joinpath("transcript_words.txt").read_text().split("\n")[:-1] == texts["train-clean-5"]
        names = ("bpe.model", "tokens.txt", f"unigram_{size}.model", f"unigram_{size}.vocab")
        assert all((lang / name).is_file() for name in names)
        assert lang.joinpath("bpe.model").read_bytes() == lang.joinpath(f"unigram_{size}.model").read_bytes()
        tokens = [line.split()[0] for line in lang.joinpath("tokens.txt").read_text().splitlines()]
        assert len(tokens) == size and tokens[:3] == ["<blk>", "<sos/eos>", "<unk>"]
        assert [
            line.split("\t")[0] for line in lang.joinpath(f"unigram_{size}.vocab").read_text().splitlines()
        ] == tokens


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--stage", 6], "--stage 6 comes after --stop-stage 5"),
        (
            ["--stage", 1, "--stop_stage", 1, "--dl-dir", "nowhere"],
            "no folder nowhere/LibriSpeech/train-clean-100; run stage 0, or give",
        ),
        (["--stage", 5, "--data-dir", "/dev/null/data"], "cannot create the folder /dev/null/data"),
        (
            ["--stage", 5, "--data-dir", "/tmp/nowhere"],
            "no /tmp/nowhere/manifests/librispeech_supervisions_train-clean-100.jsonl.gz; run stage 1 first",
        ),
        (["--vocab-sizes", "many"], "--vocab-sizes must be whole numbers, not 'many'"),
        (["--nj", 0], "--nj must be at least 1"),
        (["--mini-libri", "maybe"], "--mini-libri must be 1 or 0"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, told):
    printed = run_prepare(*arguments, status=1)
    assert told in printed.strip().splitlines()[-1] and "Traceback" not in printed


def test_repeating_does_nothing_and_a_crash_costs_one_part(mini_libri):
    _, data, arguments, _ = mini_libri
    watched = sorted(p for p in data.rglob("*") if p.is_file() and ".done" not in p.name)
    before = [p.stat().st_mtime_ns for p in watched]
    run_prepare(*arguments, "--stage", 1, "--stop-stage", 5)
    assert [p.stat().st_mtime_ns for p in watched] == before
    target = data / "fbank/librispeech_cuts_dev-clean-2.jsonl.gz"
    target.unlink()
    told = run_prepare(*arguments, "--stage", 3, "--stop-stage", 3)
    assert target.is_file() and "train-clean-5.jsonl.gz exists; skipped" in told
    model = data / "lang_bpe_40/bpe.model"
    content = model.read_bytes()
    model.unlink()  # though its marker says that it is there
    run_prepare(*arguments, "--stage", 5, "--stop-stage", 5)
    assert model.read_bytes() == content


@pytest.mark.slow
def test_files_without_markers_are_kept(mini_libri, tmp_path):
    root, data, _, _ = mini_libri
    fbank, lang = tmp_path / "fbank", tmp_path / "lang_bpe_45"
    fbank.mkdir()
    lang.mkdir()
    for part in ("train-clean-5", "dev-clean-2"):
        name = f"librispeech_cuts_{part}.jsonl.gz"
        (fbank / name).write_bytes((data / "fbank" / name).read_bytes())
    (lang / "bpe.model").write_bytes((data / "lang_bpe_40/bpe.model").read_bytes())
    stamps = {p: p.stat().st_mtime_ns for p in [*fbank.iterdir(), *lang.iterdir()]}
    arguments = ["--mini-libri", 1, "--dl-dir", root, "--data-dir", tmp_path, "--vocab-sizes", 45, "--nj", 1]
    run_prepare(*arguments, "--stage", 1, "--stop-stage", 1)
    run_prepare(*arguments, "--stage", 3, "--stop-stage", 3)
    run_prepare(*arguments, "--stage", 5, "--stop-stage", 5)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())


@pytest.mark.slow
def test_on_the_fly_features_need_no_storage(mini_libri, tmp_path):
    root, _, _, _ = mini_libri
    arguments = [
        "--mini-libri",
        1,
        "--dl-dir",
        root,
        "--data-dir",
        tmp_path,
        "--vocab-sizes",
        45,
        "--nj",
        1,
        "--on-the-fly-feats",
        1,
    ]
    run_prepare(*arguments, "--stage", 1, "--stop-stage", 5)
    assert not list(tmp_path.rglob("*.f16"))
    assert all(c.has_recording for c in read_cuts(tmp_path / "manifests/musan_cuts.jsonl.gz"))


def test_archives_are_unpacked_whole_or_not_at_all(mini_libri, tmp_path):
    root, _, _, _ = mini_libri
    for part in ("train-clean-5", "dev-clean-2"):
        with tarfile.open(tmp_path / f"{part}.tar.gz", "w:gz") as archive:
            archive.add(root / "LibriSpeech" / part, f"LibriSpeech/{part}")
    with tarfile.open(tmp_path / "musan.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("musan/noise/README")
        archive.addfile(member, io.BytesIO())
    arguments = [
        "--mini-libri",
        1,
        "--dl-dir",
        tmp_path,
        "--data-dir",
        tmp_path / "data",
        "--stage",
        0,
        "--stop-stage",
        0,
    ]
    whole = (tmp_path / "dev-clean-2.tar.gz").read_bytes()
    (tmp_path / "dev-clean-2.tar.gz").write_bytes(whole[: len(whole) // 2])
    told = run_prepare(*arguments, status=1)
    assert "dev-clean-2.tar.gz is damaged" in told and not (tmp_path / "LibriSpeech/dev-clean-2").exists()
    (tmp_path / "dev-clean-2.tar.gz").write_bytes(whole)
    run_prepare(*arguments)
    assert len(list((tmp_path / "LibriSpeech").rglob("*.flac"))) == 9 and (tmp_path / "musan/noise").is_dir()
    told = run_prepare(*arguments[:-4], "--stage", 2, "--stop-stage", 2, status=1)
    assert "error: no folder" in told and "musan/music" in told and "Traceback" not in told


def test_language_model_files_are_unzipped(tmp_path):
    folder = tmp_path / "lm"
    folder.mkdir()
    zipped = ("3-gram.pruned.1e-7.arpa", "4-gram.arpa", "librispeech-lm-norm.txt")
    for name in zipped:
        (folder / f"{name}.gz").write_bytes(gzip.compress(name.encode()))
    for name in ("librispeech-vocab.txt", "librispeech-lexicon.txt"):
        (folder / name).write_text("A  AH\n")
    run_prepare("--stage", -1, "--stop-stage", -1, "--dl-dir", tmp_path)
    assert all((folder / name).read_text() == name for name in zipped)
    (folder / zipped[0]).unlink()
    (folder / f"{zipped[0]}.gz").write_bytes(gzip.compress(bytes(1000))[:-12])
    told = run_prepare("--stage", -1, "--stop-stage", -1, "--dl-dir", tmp_path, status=1)
    assert "is damaged" in told and not (folder / zipped[0]).exists()


@pytest.mark.parametrize(
    "arguments, words",
    [(["--perturb-speed", "2"], "--perturb-speed must be 1 or 0"), (["--foo", 1], "unknown option")],
)
def test_wrong_options_end_with_one_line(arguments, words):
    told = run_prepare(*arguments, status=2 if "--foo" in arguments else 1)
    assert words in told and told.count("\n") == 1


@pytest.mark.slow
def test_every_file_of_the_full_corpus(mini_librispeech):
    data, fbank = mini_librispeech.data_dir, mini_librispeech.manifest_dir
    for part in (*TRAIN, *TEST):
        recordings = RecordingSet.from_file(data / f"manifests/librispeech_recordings_{part}.jsonl.gz")
        supervisions = SupervisionSet.from_file(data / f"manifests/librispeech_supervisions_{part}.jsonl.gz")
        assert [s.text for s in supervisions] == mini_librispeech.texts[part] and len(recordings) == len(
            supervisions
        )
        cuts = read_cuts(fbank / f"librispeech_cuts_{part}.jsonl.gz")
        assert len(cuts) == len(recordings) * (3 if part in TRAIN else 1)
        assert (fbank / f"librispeech_feats_{part}").is_dir()
    for part in ("music", "noise", "speech"):
        assert (data / f"manifests/musan_recordings_{part}.jsonl.gz").is_file()
    assert (data / "manifests/musan_supervisions_music.jsonl.gz").is_file()
    assert all(c.duration > 5 for c in read_cuts(fbank / "musan_cuts.jsonl.gz"))
    markers = (".librispeech.done", ".librispeech-validated.done", ".musan.done")
    assert all((fbank / name).is_file() for name in markers)
    assert Tokenizer.load(mini_librispeech.lang_dir).vocab_size == VOCAB


@pytest.mark.slow
def test_the_shuffled_training_cuts_are_all_of_them_in_a_fixed_order(mini_librispeech):
    fbank = mini_librispeech.manifest_dir
    shuffled = fbank / "librispeech_cuts_train-all-shuf.jsonl.gz"
    ids = [c.id for c in CutSet.from_jsonl_lazy(shuffled)]
    inorder = [
        c.id for part in TRAIN for c in CutSet.from_jsonl_lazy(fbank / f"librispeech_cuts_{part}.jsonl.gz")
    ]
    assert sorted(ids) == sorted(inorder) and ids != inorder
    content = shuffled.read_bytes()
    shuffled.unlink()
    run_prepare(*mini_librispeech.arguments, "--stage", 3, "--stop-stage", 3)
    assert shuffled.read_bytes() == content
    cut = next(iter(CutSet.from_jsonl_lazy(shuffled)))
    assert np.isfinite(cut.load_features()).all()
    # They are made again where recordings have been found since that they lack.
    lacks = fbank / ".librispeech-shuffled-lacks"
    lacks.write_text("19-198-0000: No such file or directory\n")
    shuffled.write_bytes(b"")
    run_prepare(*mini_librispeech.arguments, "--stage", 3, "--stop-stage", 3)
    assert shuffled.read_bytes() == content and not lacks.exists()


def librispeech(params):
    """The recipe's corpus."""
    spec = importlib.util.spec_from_file_location("librispeech_of_the_recipe", RECIPE / "librispeech.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LibriSpeech(params)


@pytest.mark.slow
def test_the_corpus_finds_its_sets_in_manifests_and_shar(mini_librispeech, tmp_path):
    run_prepare(*mini_librispeech.arguments, "--stage", 3, "--stop-stage", 3, "--shar-dir", tmp_path)
    assert (tmp_path / "train-all-shuf/features.000000.tar").is_file()
    params = {"manifest_dir": str(mini_librispeech.manifest_dir), "full_libri": True, "mini_libri": False}
    plain, shar = librispeech(params), librispeech({**params, "shar_dir": str(tmp_path)})
    assert [c.id for c in plain.train_cuts()] == [c.id for c in shar.train_cuts()]
    assert len(list(plain.valid_cuts())) == 8 and {
        name: len(list(cuts)) for name, cuts in shar.test_sets().items()
    } == {
        "test-clean": 4,
        "test-other": 4,
    }
    assert len(list(librispeech({**params, "full_libri": False}).train_cuts())) == 72
