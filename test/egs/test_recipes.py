"""The form of recipes: stubs that are all the same, and a recipe.py that says everything else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_programs import EGS, RECIPES, STUBS, options_given, parser_of, training_of

from asr_core.bin import recipe
from asr_core.utils.errors import UserError

ROOT = EGS.parent
HEAVY = ("torch", "lhotse", "sentencepiece", "numba")
L = EGS / "librispeech/ASR"


def id_of(path):
    return str(path.relative_to(EGS))


def python(*arguments, status=0, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_stubs_are_all_the_same_and_executable():
    assert len(STUBS) > 60
    (content,) = {path.read_bytes() for path in STUBS}
    assert content.startswith(b"#!/usr/bin/env python3\n") and content.count(b"\n") == 4
    assert not [id_of(path) for path in STUBS if not os.access(path, os.X_OK)]


@pytest.mark.parametrize("folder", RECIPES, ids=id_of)
def test_each_stub_names_a_program_and_each_entry_of_defaults_a_stub(folder):
    stubs = [path for path in STUBS if path.parent == folder]
    for stub in stubs:
        assert parser_of(stub)._option_string_actions
    own = recipe.load_file("recipe.py", beside=str(stubs[0]))
    assert set(getattr(own, "DEFAULTS", {})) <= {stub.stem for stub in stubs}


def test_recipes_put_nothing_on_the_path():
    files = [path for path in EGS.rglob("*.py") if "__pycache__" not in path.parts]
    assert not [id_of(path) for path in files if "sys.path" in path.read_text(encoding="utf-8")]


def test_recipes_are_short():
    lines = {id_of(path): len(path.read_text().splitlines()) for path in EGS.glob("*/ASR/**/*.py")}
    assert sum(n for name, n in lines.items() if name.startswith("librispeech")) <= 450
    assert not {name: n for name, n in lines.items() if name.endswith("/recipe.py") and n > 100}


def test_help_of_all_programs_loads_nothing_heavy():
    code = f"""
import contextlib, io, sys
from asr_core.bin.recipe import run
for stub in {list(map(str, STUBS))!r}:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            run(stub, "__main__", ["--help"])
        except SystemExit as e:
            assert not e.code, stub
    assert text.getvalue().startswith("usage: "), stub
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert python("-c", code).strip() == "[]"


def test_defaults_that_follow_from_the_recipe():
    given = vars(options_given(L / "conformer_rnnt/train.py"))
    assert given["exp_dir"] == "conformer_rnnt/exp" and given["encoder"] == "conformer"
    assert given["bpe_model"] == "data/lang_bpe_1024/bpe.model"
    assert given["manifest_dir"] == "data/fbank"  # of the corpus
    assert options_given(L / "conformer/finetune.py").exp_dir == "conformer/exp_finetune"
    assert options_given(L / "zipformer/finetune.py").exp_dir == "zipformer/exp"  # given in DEFAULTS
    for folder, file in (
        ("conformer", "jit_script.pt"),
        (L / "pruned_transducer_stateless7_streaming", "cpu_jit.pt"),
    ):
        folder = L / folder
        assert options_given(folder / "transcribe.py", "a.wav").model == f"{folder.name}/exp/{file}"


def test_base_and_recipe_are_merged_option_by_option(tmp_path):
    (tmp_path / "shared.py").write_text(
        "class CORPUS: name = 'c'\nEXP_DIR = 'shared'\n"
        "DEFAULTS = {'train': {'seed': 1, 'num_epochs': 2}, 'decode': {'avg': 3}}\n"
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model/recipe.py").write_text(
        "BASE = '../shared.py'\nEXP_DIR = 'mine'\nDEFAULTS = {'train': {'seed': 4}, 'export': {'avg': 5}}\n"
    )
    found = recipe.read_recipe(str(tmp_path / "model/train.py"))
    assert found.corpus.name == "c" and found.exp_dir == "mine"
    assert found.defaults == {
        "train": {"seed": 4, "num_epochs": 2},
        "decode": {"avg": 3},
        "export": {"avg": 5},
    }


CORPUS = "from asr_core.data.corpus import Corpus\nclass CORPUS(Corpus):\n    name = 'tiny'\n"


@pytest.mark.parametrize(
    "stub, settings, words",
    [
        ("trian", CORPUS, "trian.py is not named after a program; rename it to one of train.py, "),
        ("train", None, "has no recipe.py"),
        ("train", CORPUS + "MODLES = {}\n", "sets the unknown name MODLES; known are BASE, CORPUS, "),
        ("train", CORPUS + "DEFAULTS = {'dekode': {}}\n", "DEFAULTS names no program 'dekode'"),
        ("train", "EXP_DIR = 'exp'\n", "must set either CORPUS or, for a language model, LM_TYPE"),
        ("train", CORPUS + "LM_TYPE = 'rnn'\n", "must set either CORPUS or"),
        ("train", "BASE = 'other.py'\n", "BASE 'other.py' does not exist"),
        ("decode", "LM_TYPE = 'rnn'\n", "rename it to one of train.py, export.py, compute_perplexity.py"),
    ],
)
def test_mistakes_end_with_one_line_that_says_what_to_do(stub, settings, words, tmp_path, capsys):
    if settings is not None:
        (tmp_path / "recipe.py").write_text(settings)
    with pytest.raises(SystemExit) as stop:
        recipe.run(str(tmp_path / f"{stub}.py"), "__main__", [])
    told = capsys.readouterr().err
    assert stop.value.code == 1 and told.startswith("error: ") and told.count("\n") == 1 and words in told


def test_a_stub_runs_as_a_program(tmp_path):
    (tmp_path / "recipe.py").write_text(CORPUS + "DEFAULTS = {'decode': {'avg': 7}}\n")
    stub = Path(tmp_path / "decode.py")
    stub.write_bytes(STUBS[0].read_bytes())
    assert "--avg INT" in python(stub, "--help") and "(default: 7)" in python(
        "decode.py", "--help", cwd=tmp_path
    )


def test_spawned_processes_unpickle_the_classes_of_a_recipe(tmp_path):
    """multiprocessing imports the program under another name; then run() only loads the recipe."""
    (tmp_path / "recipe.py").write_text(CORPUS)
    (tmp_path / "train.py").write_text(
        "import multiprocessing, operator\n"
        "from asr_core.bin.recipe import load_file, run\n"
        "if __name__ == '__main__':\n"
        "    corpus = load_file('recipe.py', beside=__file__).CORPUS\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(operator.attrgetter('name'), (corpus,)))\n"
        "else:\n"
        "    run(__file__, __name__)\n"
    )
    assert python("train.py", cwd=tmp_path) == "tiny\n"


def test_a_recipe_changes_the_weights_of_the_losses():
    (corpus, recipe_class), params = training_of(EGS / "yesno/ASR/train.py", "--ctc-decay-batches", 100)
    task, heads = recipe_class(params, corpus(params)), ["simple_loss", "pruned_loss", "ctc_loss"]
    weights = [task.loss_weights(batch, heads) for batch in (0, 50, 100, 1000)]
    assert [w["ctc_loss"] for w in weights] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    params["ctc_decay_batches"] = 0
    assert task.loss_weights(0, heads)["ctc_loss"] == 0.2
    assert weights[0]["pruned_loss"] == pytest.approx(0.1)  # the other weights are the usual ones


@pytest.mark.parametrize(
    "source, words", [("x.py:A", "has no file x.py"), ("recipe.py:A", "has no class 'A'")]
)
def test_a_recipe_class_that_does_not_exist(source, words):
    with pytest.raises(UserError, match=f"RECIPE '{source}': .* {words}; give FILE:CLASS"):
        recipe.load_class(source, beside=str(EGS / "yesno/ASR/train.py"))
