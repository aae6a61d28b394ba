"""The shape of the house: imports go down only, files fit in a head, starting up is cheap."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What each part may import besides itself; `utils` is the cellar that all stand on.
MAY_IMPORT = {
    "utils": set(),
    "data": {"text", "ops"},
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


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MODEL_OR_OPTIONS = re.compile(r"(^|_)(model|opts|options)$")


def python_files(*folders):
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


def imports(path, top_level_only=False):
    """(line, module) of every import statement; with ``top_level_only`` those that run when the
    module is imported.
    """
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
        if module.split(".")[0] in OPTIONAL and "local" not in path.parts and path.parent.name != "gpu"
    ]
    assert not wrong, "\n".join(wrong)


def test_starting_up_imports_no_kernels_of_gpus():
    code = "import sys, asr_core.models.asr_model, asr_core.ops.rnnt_loss; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_files_fit_in_a_head():
    long = {
        str(p.relative_to(ROOT)): n
        for p in python_files("asr_core", "egs", "test")
        if (n := len(p.read_text().splitlines())) > 420
    }
    assert not long


def own_files():
    """Each file of the library by its module name; a package goes by its own name."""
    named = {}
    for path in python_files("asr_core"):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


def test_no_circles_of_files():
    named = own_files()
    graph = {
        name: {found for _, module in imports(path) if (found := _file_of(module, named)) not in (None, name)}
        for name, path in named.items()
        if path.name != "__init__.py"
    }
    while True:  # take away files that import none of those that are left, or that none of those imports
        imported = set().union(*graph.values()) if graph else set()
        free = [name for name in graph if not graph[name] & graph.keys() or name not in imported]
        if not free:
            break
        for name in free:
            del graph[name]
    assert not graph, "files in circles of imports, or between two:\n" + "\n".join(sorted(graph))


def _file_of(module, named):
    """The file that ``import module`` or ``from package import name`` (written package.name) reads;
    None: not ours.
    """
    return next((name for name in (module, module.rpartition(".")[0]) if name in named), None)


def test_deferred_imports_of_own_code():
    """A program has one, so that --help is quick; elsewhere they would hide how the parts depend on
    each other.
    """
    wrong = []
    for path in python_files("asr_core"):
        deferred = [
            node.lineno
            for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(function, FUNCTIONS)
            for node in ast.walk(function)
            if isinstance(node, (ast.Import, ast.ImportFrom)) and _imports_own(node)
        ]
        allowed = 1 if path.parent.name == "bin" else 0
        if len(set(deferred)) > allowed:
            wrong.append(f"{path.relative_to(ROOT)}:{','.join(map(str, sorted(set(deferred))))}")
    assert not wrong, "\n".join(wrong)


def _imports_own(node):
    modules = (
        [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    )
    return any(module.split(".")[0] == "asr_core" for module in modules)


def test_models_and_options_have_types():
    """`Any` would let a reader, and the type checker, guess what a model or options offer."""
    wrong = []
    for path in python_files("asr_core"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, FUNCTIONS):
                arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
                wrong += [
                    f"{path.relative_to(ROOT)}:{argument.lineno} {argument.arg}: Any"
                    for argument in arguments
                    if _MODEL_OR_OPTIONS.search(argument.arg)
                    and argument.annotation is not None
                    and ast.unparse(argument.annotation).strip("'\"") == "Any"
                ]
    assert not wrong, "\n".join(wrong)


def test_ignored_type_errors_carry_a_reason():
    """``# type: ignore[code]  # reason``."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in python_files("asr_core")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "type: ignore" in line and not re.search(r"# type: ignore\[[\w, -]+\]  # \w", line)
    ]
    assert not wrong, "\n".join(wrong)


def test_functions_fit_on_a_screen():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines"
        for path in python_files("asr_core", "egs")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, FUNCTIONS) and (lines := node.end_lineno - node.lineno + 1) > 65
    ]
    assert not long, "\n".join(long)


def test_no_test_imports_another():
    """Shared code of tests is in conftest.py or test/helpers."""
    tests = {path.stem for path in python_files("test") if path.stem.startswith("test_")}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {module}"
        for path in python_files("test")
        for line, module in imports(path)
        if set(module.split(".")) & tests or module.startswith("conftest")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "program",
    sorted(p.stem for p in (ROOT / "asr_core/bin").glob("*.py") if p.stem != "__init__"),
)
def test_programs_import_nothing_heavy(program):
    code = f"import sys, asr_core.bin.{program}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
