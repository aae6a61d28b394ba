"""Names that are imported on first use."""

import sys
import types

import pytest

import asr_core.encoders
import asr_core.models
import asr_core.predictors
from asr_core.utils.lazy import import_object, lazy_exports


def test_a_package_imports_what_is_asked_for(monkeypatch):
    for name in ("shop", "shop.bread", "shop.wine"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["shop.bread"].Bread = object()
    export = lazy_exports("shop", {"Bread": ".bread", "Wine": ".wine"})
    assert export("Bread") is sys.modules["shop.bread"].Bread
    with pytest.raises(AttributeError, match="module 'shop' has no attribute 'Milk'"):
        export("Milk")
    with pytest.raises(AttributeError, match="Wine"):
        export("Wine")


@pytest.mark.parametrize("package", [asr_core.encoders, asr_core.models, asr_core.predictors])
def test_light_packages_export_their_names(package):
    for name in package.__all__:
        assert getattr(package, name).__name__ == name


def test_an_object_by_its_place():
    assert import_object("asr_core.utils.lazy:import_object") is import_object
    with pytest.raises(AttributeError):
        import_object("asr_core.utils.lazy:nothing")
