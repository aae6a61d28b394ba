"""Files that k2 and icefall save: graphs and ragged lists, read without k2 and without its code."""

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Dict, List, Tuple, cast

import torch
from torch import Tensor

from asr_core.utils import safe_pickle
from asr_core.utils.archives import check_archive
from asr_core.utils.errors import UserError
from asr_core.utils.paths import PathLike

_RAGGED_MODULES = ("_k2.ragged", "_k2", "k2.ragged", "k2")


class Ragged:
    """The content of a pickled ``k2.RaggedTensor``: a tensor, and where its lists begin.

    Attributes:
      splits: for each axis but the last, (number of lists + 1,) int32 offsets into the next axis.
      values: (sum of lengths,).
    """

    splits: List[Tensor]
    values: Tensor

    def __setstate__(self, state: Tuple[object, ...]) -> None:
        parts = [part for part in state if isinstance(part, Tensor)]
        if not parts or any(part.dim() != 1 for part in parts):
            raise pickle.UnpicklingError("a ragged tensor of an unknown form")
        *self.splits, self.values = parts
        lengths = [*(len(part) - 1 for part in self.splits[1:]), len(self.values)]
        for split, total in zip(self.splits, lengths):
            whole = len(split) > 0 and int(split[0]) == 0 and int(split[-1]) == total
            if not whole or bool((split.diff() < 0).any()):
                raise pickle.UnpicklingError("a ragged tensor whose parts do not fit together")


class Unpickler(safe_pickle.Unpickler):
    """The safe unpickler, to which k2's ragged tensors are plain data, see :class:`Ragged`."""

    def find_class(self, module: str, name: str) -> object:
        """Return the class ``module.name``; errors as of :mod:`~asr_core.utils.safe_pickle`."""
        if name == "RaggedTensor" and module in _RAGGED_MODULES:
            return Ragged
        return super().find_class(module, name)


def _load(file: BinaryIO, **kwargs: Any) -> object:
    return Unpickler(file, **kwargs).load()


def _pickle_module() -> ModuleType:
    """Return what ``torch.load`` takes as its ``pickle_module``."""
    module = ModuleType("k2_pickle")
    vars(module).update(Unpickler=Unpickler, load=_load)
    return module


def read_k2_file(path: PathLike) -> Dict[str, object]:
    """Read a dict that was saved with ``torch.save``: tensors, :class:`Ragged` and plain values.

    Raises:
      UserError: the file is missing, damaged, no dict, or holds other objects.
    """
    if not Path(path).is_file():
        raise UserError(f"no such file: {path}")
    check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_pickle_module())
    except safe_pickle.UnsafeObject as e:
        raise UserError(f"{path} holds an object of type {e}, which is not loaded for safety") from e
    except Exception as e:  # unpickling garbage raises anything
        reason = str(e).strip().splitlines()
        raise UserError(f"{path} is damaged: {reason[0] if reason else type(e).__name__}") from e
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, no dict")
    return cast(Dict[str, object], content)
