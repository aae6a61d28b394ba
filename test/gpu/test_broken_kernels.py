"""Every kernel is compared with a plain form, and the check is red when one is wrong."""

import contextlib
import importlib
import pkgutil
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))

from gpu_check import part_kernels, part_losses, part_models, part_operators, part_steps, roofline  # noqa: E402
from gpu_check.launches import counted  # noqa: E402
from gpu_check.parts import FAMILIES  # noqa: E402
from gpu_check.setup import Setup  # noqa: E402
from triton.runtime.interpreter import GridExecutor, InterpretedFunction  # noqa: E402

import asr_core.ops.gpu  # noqa: E402
from asr_core.ops.gpu import dispatch  # noqa: E402

CASES = [case for family in FAMILIES for case in roofline.cases_of(family) if case.must]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Send CPU tensors to the kernels."""
    monkeypatch.setenv("ASR_CORE_TRITON", "interpret")
    questions = (dispatch.available, dispatch.interpreted)
    for question in questions:
        question.cache_clear()
    yield
    monkeypatch.undo()
    for question in questions:
        question.cache_clear()


@pytest.fixture
def setup(tmp_path):
    return Setup(True, tmp_path, tmp_path)


@contextlib.contextmanager
def broken(name, factor=1.02):
    """Let a third of what kernel ``name`` writes be a little off; one that writes through tables of
    addresses does not run at all.
    """
    usual = GridExecutor.__call__

    def call(self, *args, **kwargs):
        if self.fn.__name__ != name:
            return usual(self, *args, **kwargs)
        if name in ("_adam_step", "_move_means"):
            return None
        given = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        before = [a.clone() for a in given]
        usual(self, *args, **kwargs)
        for a, old in zip(given, before):
            wrong = (a * factor if a.is_floating_point() else a + 1).to(a.dtype)
            some = torch.arange(a.numel()).view(a.shape) % 3 == 0  # a common factor may cancel
            a.data.copy_(torch.where((a != old) & some, wrong, a))
        return None

    GridExecutor.__call__ = call
    try:
        yield
    finally:
        GridExecutor.__call__ = usual


def launched(run):
    """The names of the kernels that ``run`` starts."""
    with counted() as counts:
        run()
    return set(counts)


def kernels_of_the_library():
    """The names of the kernels that the host starts: those with a ``_at`` argument of addresses
    that are not called by others.
    """
    names = set()
    for module in pkgutil.iter_modules(asr_core.ops.gpu.__path__):
        if module.name == "dispatch":
            continue
        found = importlib.import_module(f"asr_core.ops.gpu.{module.name}")
        source = Path(found.__file__).read_text()
        names |= {
            name
            for name, thing in vars(found).items()
            if isinstance(thing, InterpretedFunction) and f"{name}[" in source
        }
    return names


def test_every_kernel_is_compared(setup):
    compared = set()
    for case in CASES:
        for dtype in {"float32", "bfloat16"} & set(case.dtypes):
            compared |= launched(lambda c=case, d=dtype: part_kernels._run(c, c.tiny, d, "cpu"))
    searched = launched(part_models.items(setup)["search: greedy_search"])
    assert kernels_of_the_library() - compared - searched == set()


# What it finds changes gradients by 4 % at most, which is what half precision is allowed.
WEAK = ("bfloat16", "_hidden_sums")


def verdict(run):
    try:
        return run().get("ok", True)
    except AssertionError:
        return False


QUICK = ("SwooshL", "BiasNorm", "attention weights", "depthwise conv1d", "pruned loss", "ScaledAdam")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow)
        for case in CASES
    ],
)
def test_a_wrong_kernel_makes_its_case_red(case, setup):
    dtypes = [dtype for dtype in ("float32", "bfloat16") if dtype in case.dtypes]
    missed = []
    for dtype in dtypes:
        with counted() as names:
            row = part_kernels.check(setup, case, dtype)
        assert names and row.get("ok", True), row
        for name in names:
            with broken(name, 1.02 if dtype == "float32" else 5.0):
                if verdict(lambda dtype=dtype: part_kernels.check(setup, case, dtype)):
                    missed.append((dtype, name))
    assert set(missed) <= {WEAK}


@pytest.mark.parametrize(
    "part, item, kernel, factor",
    [
        (part_models, "search: greedy_search", "_label_looping", 1.02),
        (part_losses, "full, float32", "_recursion", 1.02),
        (part_operators, "an operator among others", "_swoosh_forward", 1.02),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                (part_models, "encoder and losses: zipformer", "_weights_forward", 1.02),
                (part_models, "encoder in bfloat16", "_weights_forward", 2.0),
                (part_losses, "pruned, float32", "_recursion", 1.02),
                (part_losses, "pruned, bfloat16", "_recursion", 2.0),
                (part_operators, "transducer losses", "_recursion", 1.02),
            )
        ),
    ],
)
def test_a_wrong_kernel_makes_the_part_red(part, item, kernel, factor, setup):
    run = part.items(setup)[item]
    assert kernel in launched(run)
    assert verdict(run) is not False
    with broken(kernel, factor):
        assert verdict(run) is False


@pytest.mark.slow
def test_a_wrong_kernel_makes_the_step_red(setup):
    run = part_steps.items(setup, "first")["medium, bfloat16"]
    with broken("_recursion", 2.0):
        assert verdict(run) is False
