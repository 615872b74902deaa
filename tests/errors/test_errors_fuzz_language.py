"""Random, mostly wrong calls of nl functions and tensor methods: both modes run them, or raise the same NkiError."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
from errors_testing import MODES, X, sbuf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InternalError, NkiError

_EXCLUDED = {"device_print", "shared_constant"}  # print, and read files
_FUNCTIONS = [n for n in nl.__all__ if inspect.isfunction(getattr(nl, n)) and n not in _EXCLUDED]
_METHODS = [n for n, _ in inspect.getmembers(nl.NkiTensor, inspect.isfunction) if n[0] != "_" and n != "numpy"]
_VALUES: tuple[Any, ...] = (
    None, 0, 1, -1, 3, 100, 2.5, math.nan, True, 1 << 40, np.int32(3), "add", "x", "float32", b"", (), (1, 0), (64, 32),
    (64, -1), (64, 4, 8), (0,), ("a", "b"), (("a", "b"), "c"), {}, {"a": 2}, [[32, 64], [1, 32]], [[1, 2]], np.ones(2),
    nl.float32, nl.sbuf, nl.add, object, ..., slice(0, 4), lambda *a: None,
)  # fmt: skip
_TENSORS = 7


def _tensors(x: Any) -> list[Any]:
    tile = nl.load(x)
    values = [x, tile, sbuf((64, 1), nl.int32), sbuf((1, 1), nl.int32), tile[:, ::2], x[0:1], nisa.register_alloc(1)]
    assert len(values) == _TENSORS
    return values


class Operand(int):
    """The index of a tensor (or register) among those the kernel makes."""


_ARGUMENT = st.one_of(st.integers(0, _TENSORS - 1).map(Operand), st.sampled_from(_VALUES))
_INDEX = st.one_of(_ARGUMENT, st.tuples(_ARGUMENT, _ARGUMENT), st.builds(nl.ds, _ARGUMENT, st.sampled_from(_VALUES)))


def _arguments(name: str, function: Any) -> st.SearchStrategy:
    """Positional arguments, mostly as many as the function needs."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    needed = sum(p.default is p.empty for p in parameters)
    return st.lists(_ARGUMENT, min_size=needed, max_size=max(needed, len(parameters)))


@st.composite
def _calls(draw: Any) -> tuple[str, Operand | None, list[Any]]:
    """(name, tensor the method belongs to or None, arguments)."""
    kind = draw(st.sampled_from(["function", "method", "index"]))
    if kind == "index":
        return "__getitem__", Operand(draw(st.integers(0, 5))), [draw(_INDEX)]
    name = draw(st.sampled_from(_FUNCTIONS if kind == "function" else _METHODS))
    if kind == "function":
        return name, None, draw(_arguments(name, getattr(nl, name)))
    return name, Operand(draw(st.integers(0, 5))), draw(_arguments(name, getattr(nl.NkiTensor, name)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::nkilite.ir.coverage.PartlyUninitialized")
@settings(max_examples=400, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(_calls())
def test_functions_and_methods(call: tuple[str, Operand | None, list[Any]]) -> None:
    name, owner, arguments = call

    def kernel(x: Any) -> None:
        tensors = _tensors(x)

        def made(value: Any) -> Any:
            if isinstance(value, nl.ds(0, 1).__class__):
                return nl.ds(made(value.start), value.size)
            if isinstance(value, tuple):
                return tuple(map(made, value))
            return tensors[value] if isinstance(value, Operand) else value

        function = getattr(nl if owner is None else tensors[owner], name)
        function(*map(made, arguments))

    outcomes = []
    for launch in MODES.values():
        try:
            launch(kernel)(X.copy())
            outcomes.append("ran")
        except NkiError as error:
            assert not isinstance(error, InternalError), error
            outcomes.append(type(error).__name__)
    assert outcomes[0] == outcomes[1]
