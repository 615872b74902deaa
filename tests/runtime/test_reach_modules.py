"""A launch notices changes of modules, of libraries, and of what is looked up by name."""

from __future__ import annotations

import importlib
import math
import operator
import sys
import types

import numpy as np
import pytest
from reach_testing import Changes, X, require_seen, times, value

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

CHANGES = Changes()
change = CHANGES.add


@change
def module_attribute():
    module = types.ModuleType("settings")
    module.inner = types.ModuleType("settings.inner")
    module.inner.scale = 2.0
    return lambda: module.inner.scale, lambda: setattr(module.inner, "scale", 3.0)


@change
def module_replaced_in_module():
    module, other = types.ModuleType("settings"), types.ModuleType("other")
    module.inner = types.ModuleType("settings.inner")
    module.inner.scale, other.scale = 2.0, 3.0
    return lambda: module.inner.scale, lambda: setattr(module, "inner", other)


@change
def module_that_finds_attributes():
    module = types.ModuleType("settings")
    found = {"scale": 2.0}
    vars(module)["__getattr__"] = found.__getitem__
    return lambda: module.scale, lambda: found.update(scale=3.0)


@change
def module_attribute_appears():
    module = types.ModuleType("settings")
    return lambda: module.scale if hasattr(module, "scale") else 2.0, lambda: setattr(module, "scale", 3.0)


@change
def module_under_another_name():
    module = types.ModuleType("settings")
    module.scale = 2.0

    def factor():
        alias = module
        return alias.scale

    return factor, lambda: setattr(module, "scale", 3.0)


@change
def module_in_a_list():
    modules = [types.ModuleType("settings")]
    modules[0].scale = 2.0
    return lambda: modules[0].scale, lambda: setattr(modules[0], "scale", 3.0)


@change
def computed_name():
    module = types.ModuleType("settings")
    module.scale = 2.0
    name = "scale"
    return lambda: getattr(module, name), lambda: setattr(module, "scale", 3.0)


@change
def attribute_getter():
    module = types.ModuleType("settings")
    module.scale = 2.0
    get = operator.attrgetter("scale")
    return lambda: get(module), lambda: setattr(module, "scale", 3.0)


@change
def format_that_looks_up():
    box = types.SimpleNamespace(inner=types.ModuleType("settings"))
    box.inner.scale = 2
    return lambda: "{0.inner.scale}".format(box), lambda: setattr(box.inner, "scale", 3)  # noqa: UP030, UP032


@change
def library_function_patched():
    module = types.ModuleType("library")
    exec("def ceil(n): return 2.0", vars(module))
    return lambda: module.ceil(1.5), lambda: exec("def ceil(n): return 3.0", vars(module))


@change
def code_evaluated():
    scale = [2.0]
    return lambda: eval("scale[0]", {"scale": scale}), lambda: scale.__setitem__(0, 3.0)


@pytest.mark.filterwarnings("ignore::nkilite.notices.RetraceWarning")
@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_seen(name) -> None:
    require_seen(CHANGES, name)


def test_a_module_that_is_loaded_again(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "reloaded_by_test.py"
    path.write_text("SCALE = 2.0\ndef scale(): return SCALE\n")
    module = importlib.import_module("reloaded_by_test")

    @nki.jit
    def kernel(x):
        return times(x, module.scale())

    assert value(kernel(X)) == 2.0
    path.write_text("SCALE = 3.00\ndef scale(): return SCALE\n")
    importlib.reload(module)
    assert value(kernel(X)) == 3.0


@pytest.mark.parametrize("place", [nl, nisa, np, math], ids=lambda m: m.__name__)
def test_a_patched_library(monkeypatch, place) -> None:
    name = {nl: "load", nisa: "tensor_copy", np: "ceil", math: "ceil"}[place]

    @nki.jit
    def kernel(x):
        used = (nl.load, nisa.tensor_copy, np.ceil, math.ceil)
        return times(x, 2.0 if all(not hasattr(f, "patched") for f in used) else 3.0)

    assert value(kernel(X)) == 2.0
    original = getattr(place, name)

    def patched(*args, **kwargs):
        return original(*args, **kwargs)

    patched.patched = True
    monkeypatch.setattr(place, name, patched)
    assert value(kernel(X)) == 3.0
