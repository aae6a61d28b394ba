"""Conditions under which a Triton kernel may replace the plain torch form.

Triton comes with torch's builds for GPUs. ``ASR_CORE_TRITON=0`` turns the kernels off;
``ASR_CORE_TRITON=interpret`` together with ``TRITON_INTERPRET=1`` runs them on CPU tensors, slowly,
as tests do.
"""

import functools
import importlib
import os
from importlib.util import find_spec
from typing import Any, Optional

import torch
from torch import Tensor

# What kernels load and store; they compute in float32.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@functools.lru_cache(maxsize=None)
def available() -> bool:
    """Return whether triton can be imported and ``ASR_CORE_TRITON`` is not 0."""
    return os.environ.get("ASR_CORE_TRITON", "1") != "0" and find_spec("triton") is not None


@functools.lru_cache(maxsize=None)
def interpreted() -> bool:
    """Return whether kernels run on CPU tensors, in Triton's interpreter."""
    both = os.environ.get("ASR_CORE_TRITON") == "interpret" and os.environ.get("TRITON_INTERPRET") == "1"
    return both and available()


def usable(*tensors: Optional[Tensor]) -> bool:
    """Return whether all ``tensors`` (None allowed) are of a float type of :data:`DTYPES`, on a GPU
    (or interpreted), and the kernels are available.
    """
    if torch.compiler.is_compiling():  # its tensors have no data
        return False
    for t in tensors:
        if t is not None and (t.dtype not in DTYPES or not (t.is_cuda or interpreted())):
            return False
    return available()


def multiplies(x: Tensor) -> bool:
    """Return whether kernels multiply matrices by matrix units on the device of x, for which
    :func:`usable` is true: Triton knows those of Ampere and later.
    """
    return not x.is_cuda or torch.cuda.get_device_capability(x.device) >= (8, 0)


class deferred:
    """A module of kernels, which is imported, and triton with it, when it is first used.

    Args:
      name: name of the module in this package.
    """

    def __init__(self, name: str) -> None:
        self._name = f"{__package__}.{name}"

    def __getattr__(self, attribute: str) -> Any:
        if attribute == "_name" or attribute.startswith("__"):  # about the object, no kernel
            raise AttributeError(attribute)
        try:
            module = importlib.import_module(self._name)
        except ModuleNotFoundError as e:
            raise AttributeError(f"{self._name}.{attribute} needs {e.name}, which is not installed") from e
        value = getattr(module, attribute)
        setattr(self, attribute, value)
        return value
