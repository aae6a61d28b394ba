"""A new corpus, as docs/recipe.md describes it: it trains in two processes, decodes and exports."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from recipe_programs import EGS

from asr_core.data.manifest import make_cut, write_cuts

RECIPE = '''
from dataclasses import dataclass

from asr_core.data.corpus import Corpus
from asr_core.utils.options import option


class Bells(Corpus):
    """Tones that are called BIM or BAM."""

    name = "bells"
    defaults = {"on_the_fly_feats": True, "num_workers": 1, "bucketing_sampler": False, "enable_musan": False}


@dataclass
class LouderOptions:
    """Louder."""

    factor: float = option(1.0, "multiplies the loss", above=0)


CORPUS = Bells
EXP_DIR = "exp"
LANG_DIR = "data/lang"
RECIPE = "louder.py:Louder"
OPTIONS = (LouderOptions,)
_SMALL = {"num_encoder_layers": "1,1", "downsampling_factor": "1,2", "encoder_dim": "16,24"}
_SMALLER = {"encoder_unmasked_dim": "16", "feedforward_dim": "16", "num_heads": "1", "cnn_module_kernel": "7"}
_HEADS = {"decoder_dim": 16, "joiner_dim": 16, "query_head_dim": 8, "value_head_dim": 4, "pos_dim": 8}
DEFAULTS = {
    "train": {**_SMALL, **_SMALLER, **_HEADS, "num_epochs": 1, "average_period": 1, "max_duration": 4.0},
    "decode": {"epoch": 1, "avg": 1, "use_averaged_model": False},
    "export": {"epoch": 1, "avg": 1, "use_averaged_model": False},
}
'''
LOUDER = """
from asr_core.training.asr_recipe import AsrRecipe


class Louder(AsrRecipe):
    def compute_loss(self, model, batch, batch_idx_train, reduction="sum"):
        out = super().compute_loss(model, batch, batch_idx_train, reduction)
        return out._replace(loss=out.loss * self.params["factor"])
"""


def write_bells(folder):
    """Manifests of all parts: one second of a low or a high tone for each utterance."""
    manifests = folder / "data/manifests"
    manifests.mkdir(parents=True)
    for part, count in (("train", 8), ("valid", 2), ("test", 2)):
        cuts = []
        for i in range(count):
            path = folder / f"{part}-{i}.wav"
            soundfile.write(path, 0.3 * np.sin(np.arange(16000) * (0.1 + 0.2 * (i % 2))), 16000)
            cuts.append(make_cut(path.stem, path, 16000, 16000, ["BIM", "BAM"][i % 2]))
        write_cuts(cuts, manifests / f"bells_cuts_{part}.jsonl.gz")


@pytest.fixture
def recipe(tmp_path):
    """The recipe's folder; call it to run one of its programs."""
    write_bells(tmp_path)
    (tmp_path / "recipe.py").write_text(RECIPE)
    (tmp_path / "louder.py").write_text(LOUDER)
    for program in ("train", "decode", "export"):
        shutil.copy(EGS / f"yesno/ASR/{program}.py", tmp_path)
    (tmp_path / "text.txt").write_text("BIM\nBAM\n")

    def run(*command):
        env = {**os.environ, "PYTHONPATH": str(EGS.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run.folder = tmp_path
    return run


@pytest.mark.slow
def test_a_new_corpus_trains_in_two_processes_decodes_and_exports(recipe):
    recipe("-m", "asr_core.bin.train_tokenizer", "--lang-dir", "data/lang", "--transcript", "text.txt",
           "--vocab-size", 8, "--model-type", "char", "--fit-vocab", 1)  # fmt: skip
    cpu = ["--device", "cpu", "--num-threads", 1]
    told = recipe("train.py", "--world-size", 2, "--factor", 3, "--manifest-dir", "data/manifests", *cpu)
    assert (recipe.folder / "exp/epoch-1.pt").is_file() and "'factor': 3.0" in told
    assert "test" in recipe("decode.py", "--manifest-dir", "data/manifests", *cpu)
    (results,) = (recipe.folder / "exp/greedy_search").glob("recogs-test*.txt")
    assert "ref=['BIM']" in results.read_text()
    recipe("export.py", "--jit", 1)
    assert (recipe.folder / "exp/jit_script.pt").is_file()
