"""Compile all kernels for cards that are not there.

    python test/gpu/gpu_check/compiled.py --arch 90 --dtypes bfloat16

Triton's interpreter takes what its compiler refuses. Here the cases of the check run on CPU tensors
with a driver that only names a card: each launch compiles its kernel, down to the machine code, and
starts nothing. The table has the registers, the bytes that do not fit into them (local memory) and
the shared memory of each kernel, as the assembler counted them.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2])]


class Usage(NamedTuple):
    """What a compiled kernel needs, at most, over all variants."""

    variants: int = 0
    registers: int = 0
    local: int = 0
    shared: int = 0

    def add(self, registers: int, local: int, shared: int) -> "Usage":
        """Return this with one more variant."""
        largest = (max(pair) for pair in zip(self[1:], (registers, local, shared)))
        return Usage(self.variants + 1, *largest)


class Compilation:
    """Launches of kernels, which compile them for a card.

    Args:
      arch: compute capability of the card, e.g. 90.

    Attributes:
      usage: what compiled, by name.
      errors: what did not, by name and variant.
    """

    def __init__(self, arch: int) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.runtime.driver import driver
        from triton.runtime.jit import JITFunction

        self.usage: Dict[str, Usage] = {}
        self.errors: List[Tuple[str, str]] = []
        self._seen: set = set()
        driver.set_active(_Named(GPUTarget("cuda", arch, 32)))
        usual = JITFunction.run

        def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
            name = kernel.fn.__name__
            try:
                compiled = usual(kernel, *args, grid=grid, warmup=True, **options)
            except Exception as e:  # the compiler raises many kinds
                self.errors.append((name, f"{type(e).__name__}: {e}"))
                return None
            if compiled is not None and compiled.hash not in self._seen:
                self._seen.add(compiled.hash)
                used = _resources(compiled.asm["cubin"])
                self.usage[name] = self.usage.get(name, Usage()).add(*used, compiled.metadata.shared)
            return compiled

        JITFunction.run = run


class _Named:
    """A driver of a card that is not there."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        """Do nothing: there is one."""

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")


def _resources(cubin: bytes) -> Tuple[int, int]:
    """Return registers of a thread and bytes of its local memory: cuobjdump comes with triton."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.is_file():
        return 0, 0
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def compile_cases(
    compilation: Compilation, families: Sequence[str], dtypes: Sequence[str], sizes: str
) -> None:
    """Run all cases of ``families`` in ``dtypes``, with their ``sizes`` ("odd" or "bench")."""
    from asr_core.ops.gpu import dispatch
    from gpu_check.part_kernels import _run
    from gpu_check.roofline import cases_of

    dispatch.usable = lambda *xs: all(x is None or x.dtype in dispatch.DTYPES for x in xs)
    for family in families:
        for case in cases_of(family):
            for dtype in case.dtypes:
                if dtype in dtypes:
                    try:
                        _run(case, getattr(case, sizes), dtype, "cpu")
                    except Exception as e:  # results that no kernel wrote may be out of range
                        compilation.errors.append((f"{case.name}, {dtype}", f"{type(e).__name__}: {e}"))


def main() -> int:
    from gpu_check.parts import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", type=int, default=90, help="compute capability: 80 A100, 90 H100, 100 B200")
    parser.add_argument("--families", default=",".join(FAMILIES), help="of cases, comma-separated")
    parser.add_argument("--dtypes", default="float32,bfloat16,float16")
    parser.add_argument("--sizes", default="odd", choices=("odd", "bench"))
    parser.add_argument("--code", help="instead of the cases, Python code that launches kernels")
    args = parser.parse_args()
    os.environ.pop("TRITON_INTERPRET", None)
    cache = tempfile.mkdtemp(prefix="compiled-kernels-")
    os.environ["TRITON_CACHE_DIR"] = cache
    try:
        done = Compilation(args.arch)
        if args.code:
            exec(args.code, {})
        else:
            compile_cases(done, args.families.split(","), args.dtypes.split(","), args.sizes)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    print("| kernel | variants | registers | local bytes | shared bytes |\n|---|---|---|---|---|")
    for name, usage in sorted(done.usage.items()):
        print(f"| {name} | {' | '.join(map(str, usage))} |")
    for name, error in done.errors:
        print(f"{name}: {error}", file=sys.stderr)
    return 1 if done.errors else 0


if __name__ == "__main__":
    sys.exit(main())
