"""What all parts know: sizes, folders, environment; this module imports no torch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple

ROOT = Path(__file__).resolve().parents[3]
# Modules that machines with GPUs may lack.
WHEELS = ("lhotse", "soundfile", "kaldialign", "sentencepiece", "espeakng_loader", "numba", "scipy")


class Setup(NamedTuple):
    """How the check runs.

    Attributes:
      small: tiny sizes on the CPU, kernels in Triton's interpreter: a rehearsal.
      out: folder of the results.
      work: folder of data and checkpoints.
    """

    small: bool
    out: Path
    work: Path

    @property
    def device(self) -> str:
        """The device that is checked."""
        return "cpu" if self.small else "cuda"


class Skipped(Exception):
    """An item cannot run here, through no fault of ours; the message says why."""


def install_wheels(folder: Path, target: Path) -> str:
    """Install the wheels of a folder where the parts find them; return what went wrong, or nothing.

    All at once, which is faster, or if that fails one at a time: a wheel for another Python, or one
    that is damaged, costs only itself. Packages that this Python has already come later on the
    path, so wheels of them would replace them: those are left out.
    """
    found = sorted(folder.glob("*.whl"))
    if not found:
        return f"--wheels {folder} has no wheels"
    wheels = [wheel for wheel in found if not _has(wheel.name.split("-")[0])]
    if not wheels or not _install(wheels, target):
        return ""
    failed = [f"{wheel.name}: {error}" for wheel in wheels for error in [_install([wheel], target)] if error]
    return "; ".join(failed)


def _install(wheels: List[Path], target: Path) -> str:
    """Install wheels; return what went wrong, or nothing."""
    options = ["--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--quiet", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target)]
    done = subprocess.run(
        [*command, *map(str, wheels)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return (done.stdout.strip() or "pip failed").splitlines()[-1] if done.returncode else ""


def _has(distribution: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def child_environment(setup: Setup, here: Path, site: Path) -> Dict[str, str]:
    """Return the environment of the processes of the parts."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    known = env.get("PYTHONPATH", "")
    env["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(here), *([str(site)] if site.is_dir() else []), *([known] if known else [])]
    )
    # The reference is the plain form in float64; numba's kernels would take a minute to compile.
    env.setdefault("ASR_CORE_CPU_KERNELS", "0")
    env.setdefault("OMP_NUM_THREADS", "4")  # several parts run beside each other
    env["PYTHON"] = sys.executable
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    env.pop("ASR_CORE_TRITON", None)
    if setup.small:
        env.update(TRITON_INTERPRET="1", ASR_CORE_TRITON="interpret", CUDA_VISIBLE_DEVICES="")
    else:
        env.pop("TRITON_INTERPRET", None)
    return env
