"""Part: the data of the training parts: synthesised digits, or tones where no synthesiser is."""

import json
import subprocess
import wave
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
from small_tokenizer import train_bpe

from gpu_check.setup import ROOT, Setup, Skipped

RECIPE = ROOT / "egs/digits/ASR"
_WORDS = "zero one two three four five six seven eight nine".split()
_RATE = 16000


def items(setup: Setup) -> Dict[str, Callable[[], Dict[str, Any]]]:
    """Return the preparation of the digits, and what takes their place."""
    return {"digits": lambda: digits(setup), "tones": lambda: tones(setup)}


def data_options(setup: Setup) -> List[str]:
    """Return the options of train.py that name the data.

    Raises:
      Skipped: no data could be made.
    """
    for kind in ("digits", "tones"):
        path = setup.work / kind / "options.json"
        if path.exists():
            return json.loads(path.read_text())
    raise Skipped("no data: see part digits")


def _ready(folder: Path, options: List[str]) -> None:
    (folder / "options.json").write_text(json.dumps(options))


def digits(setup: Setup) -> Dict[str, Any]:
    """Run the recipe's own preparation."""
    need("lhotse", "soundfile", "sentencepiece", "espeakng_loader")
    folder = setup.work / "digits"
    train, few, jobs = (60, 8, 2) if setup.small else (500, 20, 12)
    counts = ["--num-train", train, "--num-valid", few, "--num-test", few, "--num-noise", 0, "--nj", jobs]
    command = ["bash", "./prepare.sh", "--data-dir", str(folder), *map(str, counts)]
    done = subprocess.run(command, cwd=RECIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    if done.returncode:
        raise RuntimeError(f"prepare.sh ended with status {done.returncode}: {done.stdout[-300:]}")
    cuts, model = folder / "fbank", folder / "lang_bpe_34/bpe.model"
    _ready(folder, ["--corpus", "synth", "--manifest-dir", str(cuts), "--bpe-model", str(model)])
    return {"utterances": train}


def tones(setup: Setup) -> Dict[str, Any]:
    """Write recordings in which each digit is a tone, unless digits were synthesised."""
    if (setup.work / "digits/options.json").exists():
        raise Skipped("the digits are there")
    need("lhotse", "sentencepiece")
    from asr_core.data.manifest import make_cut, write_cuts

    folder = setup.work / "tones"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 40 if setup.small else 500), ("valid", 8)):
        cuts = []
        for i in range(count):
            words = rng.integers(0, 10, rng.integers(3, 8))
            pitches = np.concatenate(
                [[0.0] * 1600, *([300.0 + 300 * w] * 4800 + [0.0] * 1600 for w in words)]
            )
            samples = 0.2 * np.sin(2 * np.pi * np.cumsum(pitches) / _RATE) * (pitches > 0)
            samples += 0.003 * rng.standard_normal(len(samples))
            path = folder / f"{part}-{i}.wav"
            with wave.open(str(path), "wb") as f:
                f.setparams((1, 2, _RATE, 0, "NONE", ""))
                f.writeframes((samples * 32767).astype("<i2").tobytes())
            text = " ".join(_WORDS[w] for w in words)
            cuts.append(make_cut(f"{part}-{i}", path, len(samples), _RATE, text))
        write_cuts(cuts, folder / f"synth_cuts_{part}.jsonl.gz")
    model = folder / "bpe.model"
    train_bpe(folder, [" ".join(_WORDS)], 34)
    options = ["--corpus", "synth", "--manifest-dir", str(folder), "--bpe-model", str(model)]
    _ready(folder, [*options, "--on-the-fly-feats", "1"])
    return {"utterances": 500, "note": "tones take the place of synthesised digits"}


def need(*modules: str) -> None:
    """Skip what needs packages that are missing."""
    from importlib.util import find_spec

    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise Skipped(f"missing: {', '.join(missing)}; see --wheels")
