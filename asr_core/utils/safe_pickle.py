"""An unpickler for checkpoints of other programs that creates data but calls no code of theirs.

It has the interface that ``torch.load`` expects of its ``pickle_module``.
"""

import io
import pickle
from typing import Any, BinaryIO, Dict

from asr_core.utils.options import AttributeDict

_ALLOWED: Dict[str, frozenset] = {
    "builtins": frozenset(
        "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple".split()
    ),
    "collections": frozenset({"OrderedDict", "defaultdict", "Counter", "deque"}),
    "copyreg": frozenset({"_reconstructor"}),
    "_codecs": frozenset({"encode"}),
    "pathlib": frozenset({"Path", "PosixPath", "PurePath", "PurePosixPath"}),
    "pathlib._local": frozenset({"Path", "PosixPath", "PurePath", "PurePosixPath"}),
    "argparse": frozenset({"Namespace"}),
    "datetime": frozenset({"date", "datetime", "time", "timedelta"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy.core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "torch": frozenset({"Size", "device", "dtype", "Tensor"}),
    "torch._tensor": frozenset({"_rebuild_from_type_v2"}),
    "torch._utils": frozenset(
        {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_device_tensor_from_numpy"}
    ),
    "torch.nn.parameter": frozenset({"Parameter"}),
    "torch.storage": frozenset({"UntypedStorage", "TypedStorage"}),
    "torch.torch_version": frozenset({"TorchVersion"}),
}
_TORCH_KINDS = ("Storage", "Tensor")  # torch.FloatStorage and the like: plain containers of numbers


class UnsafeObject(pickle.UnpicklingError):
    """A class or function that is not in the list of harmless ones."""


class Unpickler(pickle.Unpickler):
    """Unpickler of containers, numbers, paths, namespaces and tensors.

    Classes called AttributeDict become this library's.
    """

    def find_class(self, module: str, name: str) -> object:
        """Return the class ``module.name``.

        Raises:
          UnsafeObject: it is not in the list of harmless ones.
        """
        if name == "AttributeDict":
            return AttributeDict
        module = {"pathlib._local": "pathlib", "__builtin__": "builtins", "copy_reg": "copyreg"}.get(
            module, module
        )
        allowed = name in _ALLOWED.get(module, ())
        if module == "torch" and not allowed:
            import torch

            value = getattr(torch, name, None)
            allowed = isinstance(value, torch.dtype) or (
                isinstance(value, type) and name.endswith(_TORCH_KINDS)
            )
        if not allowed:
            raise UnsafeObject(f"{module}.{name}")
        return super().find_class(module, name)


def load(file: BinaryIO, **kwargs: Any) -> object:
    """Load as ``pickle.load`` does."""
    return Unpickler(file, **kwargs).load()


def loads(data: bytes, **kwargs: Any) -> object:
    """Load as ``pickle.loads`` does."""
    return load(io.BytesIO(data), **kwargs)
