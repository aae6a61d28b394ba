"""Names that are imported on first use, so that importing a package stays cheap."""

import importlib
from typing import Callable, Mapping


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package whose modules are slow to import (PEP 562).

    Args:
      package: the package's ``__name__``.
      modules: module of each exported name, relative to the package: ``{"Conformer": ".encoder"}``.
    """

    def __getattr__(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name], package), name)

    return __getattr__


def import_object(path: str) -> object:
    """Import and return the object at ``"package.module:name"``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
