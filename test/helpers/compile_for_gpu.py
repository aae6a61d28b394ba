"""Compile for an H100 what the launches of a snippet need; no GPU is at hand, and nothing is run.

Usage: compile_for_gpu.py SNIPPET, Python code that launches kernels on CPU tensors. Prints the
name of each kernel compiled.
"""

import sys

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction


class Driver:
    """What Triton asks of a GPU before it compiles for it."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, _=None):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")


def compile_only(kernel, grid):
    def launch(*args, **kwargs):
        made = kernel.warmup(*args, grid=grid, **kwargs)
        assert made.asm["cubin"]
        print(kernel.fn.__name__, flush=True)

    return launch


if __name__ == "__main__":
    driver.set_active(Driver())
    JITFunction.__getitem__ = compile_only
    exec(sys.argv[1], {"torch": torch})
