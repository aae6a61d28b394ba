"""Runs a program of a recipe with another back end for tensors on GPUs, which lets two processes
share one: ``shared_gpu.py PROGRAM ARGUMENTS``, the back end in CHECK_BACKEND.
"""

import os
import runpy
import sys
from typing import Any

import torch.distributed as dist


def _replacing(usual: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        backend = os.environ["CHECK_BACKEND"]

        def other(value: Any) -> Any:
            return value.replace("nccl", backend) if isinstance(value, str) else value

        kept = {name: other(value) if name == "backend" else value for name, value in kwargs.items()}
        return usual(*(other(a) for a in args[:1]), *args[1:], **kept)

    return call


if __name__ == "__main__":
    if os.environ["CHECK_BACKEND"] != "nccl":
        for name in ("init_process_group", "new_group"):
            setattr(dist, name, _replacing(getattr(dist, name)))
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
