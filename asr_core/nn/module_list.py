"""Lists of modules whose elements have a type."""

from typing import Iterable, Sequence, TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


def module_list(modules: Iterable[M]) -> Sequence[M]:
    """Return an ``nn.ModuleList``, to type checkers a sequence of its elements' type.

    ``nn.ModuleList`` itself forgets what it holds, so that methods of the elements could not be
    checked. Comments that silence a checker are no way out: TorchScript does not parse them.
    """
    return cast(Sequence[M], nn.ModuleList(modules))
