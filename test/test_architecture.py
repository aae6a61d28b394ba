"""The shape of the house: imports go down only, files fit in a head, starting up is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each part may import besides itself; `utils` is the cellar that all stand on.
MAY_IMPORT = {
    "utils": set(),
    "data": {"text"},
    "text": set(),
    "lm": {"text"},
    "ops": set(),
    "nn": {"ops"},
    "encoders": {"nn", "ops"},
    "predictors": {"nn", "ops"},
    "models": {"encoders", "predictors", "nn", "ops"},
    "training": {"decoding", "models", "encoders", "predictors", "nn", "ops", "data", "text", "lm"},
    "decoding": {"models", "encoders", "predictors", "nn", "ops", "data", "text", "lm"},
    "export": {"models", "encoders", "predictors", "nn", "ops", "data", "text", "lm", "decoding"},
    "cli": {"decoding", "models", "encoders", "data", "text", "lm"},
    "serving": {"export", "decoding", "models", "encoders", "predictors", "nn", "ops", "data", "text", "lm"},
}
HEAVY = ("torch", "lhotse", "sentencepiece", "kaldialign", "numba", "matplotlib")
OPTIONAL = ("k2", "torchaudio", "espeakng_loader", "triton", "dask", "distributed", "lilcom", "kaldifst")


def python_files(*folders):
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def imports(path, top_level_only=False):
    """(line, module) of every import statement; with ``top_level_only`` those that run when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if not top_level_only else _module_level(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _module_level(body):
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            if isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from _module_level(getattr(node, field, []))


def test_imports_go_down_only():
    checked, wrong = 0, []
    for path in python_files("asr_core"):
        parts = path.relative_to(ROOT / "asr_core").parts
        if len(parts) < 2 or parts[0] == "bin":
            continue
        allowed = MAY_IMPORT[parts[0]] | {parts[0], "utils"}
        for line, module in imports(path):
            names = module.split(".")
            if names[0] == "asr_core" and len(names) > 1 and names[1] != "__version__":
                checked += 1
                if names[1] not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert checked > 50
    assert not wrong, "\n".join(wrong)


def test_the_core_knows_no_recipe():
    corpora = {path.stem for path in ROOT.glob("egs/*/ASR/*.py")} | {path.name for path in ROOT.glob("egs/*")}
    names = {module.split(".")[0] for path in python_files("asr_core") for _, module in imports(path)}
    assert not names & (corpora | {"egs"})


def test_optional_packages_are_never_imported_at_module_level():
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {module}"
        for path in python_files("asr_core", "egs")
        for line, module in imports(path, top_level_only=True)
        if module.split(".")[0] in OPTIONAL and "local" not in path.parts
    ]
    assert not wrong, "\n".join(wrong)


def test_files_fit_in_a_head():
    long = {
        str(p.relative_to(ROOT)): n
        for p in python_files("asr_core", "egs", "test")
        if (n := len(p.read_text().splitlines())) > 420
    }
    assert not long


@pytest.mark.parametrize(
    "program",
    sorted(p.stem for p in (ROOT / "asr_core/bin").glob("*.py") if p.stem != "__init__"),
)
def test_programs_import_nothing_heavy(program):
    code = f"import sys, asr_core.bin.{program}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
