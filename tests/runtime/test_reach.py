"""What is unchanged is not traced again, and what that costs."""

from __future__ import annotations

import dataclasses
import enum
import math
import warnings

import numpy as np
import pytest
from reach_testing import X, times, value

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidSetting
from nkilite.notices import RetraceWarning
from nkilite.runtime import specialization


class Tiles(enum.IntEnum):
    rows = 128


@dataclasses.dataclass(frozen=True)
class Plan:
    scale: float = 2.0
    tile: Tiles = Tiles.rows
    table: tuple = (1, 2)

    def factor(self, extra: float = 0.0) -> float:
        return float(np.prod(self.table)) / 2 * self.scale + extra


PLAN = Plan()
TABLE = {"a": [1, 2], "dtype": nl.float32}
ARRAY = np.arange(4)


def helper(n: int) -> int:
    return math.ceil(n / Tiles.rows) + len(TABLE["a"]) - 2 + min(0, *map(abs, ARRAY)) + sum(i for i in range(1))


def test_what_is_unchanged_is_not_traced_again(traces) -> None:
    @nki.jit
    def kernel(x, scale=1.0):
        if not isinstance(scale, float) or TABLE["dtype"] != nl.float32:
            raise ValueError(f"{scale}")
        return times(x, PLAN.factor() * helper(x.shape[0]) * scale)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert value(kernel(X)) == 2.0
            assert value(kernel(X, scale=2.0)) == 4.0
            assert value(kernel(X.tolist() and X.copy(), 2.0)) == 4.0
    assert len(traces) == 2


def test_it_is_said_why_a_kernel_is_traced_at_every_launch(traces) -> None:
    name = "scale"

    @nki.jit
    def kernel(x):
        return times(x, getattr(PLAN, name))  # here

    assert value(kernel(X)) == 2.0
    with pytest.warns(RetraceWarning, match=r"(?s)computed name at .*test_reach\.py:\d+.*# here.*fix: ") as found:
        kernel(X)
    assert found[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel(X)
    assert len(traces) == 4 - 1
    executables = {id(s.executable) for s in kernel._specializations.values()}
    assert len(executables) == len(kernel._executables) == 1


def test_a_program_that_was_compiled_is_not_compiled_again(monkeypatch) -> None:
    count = []
    original = specialization.compile_program
    monkeypatch.setattr(
        specialization, "compile_program", lambda program, **how: count.append(1) or original(program, **how)
    )
    box = [2.0]

    @nki.jit
    def kernel(x):
        return times(x, box[0])

    for scale in (2.0, 3.0, 2.0, 3.0):
        box[0] = scale
        assert value(kernel(X)) == scale
    assert len(count) == 2


def test_specializations_are_bounded(monkeypatch, traces) -> None:
    @nki.jit
    def kernel(x):
        return times(x, 2.0)

    monkeypatch.setenv("NKILITE_SPECIALIZATIONS", "2")
    arrays = [np.ones((n, 8), np.float32) for n in (1, 2, 3)]
    for a in (0, 1, 0, 2, 0):  # the second is the one used least recently
        kernel(arrays[a])
    assert len(kernel._specializations) == len(kernel._executables) == len(kernel._calls._launches) == 2
    assert len(traces) == 3
    kernel(arrays[1])
    assert len(traces) == 4
    monkeypatch.setenv("NKILITE_SPECIALIZATIONS", "0")
    with pytest.raises(InvalidSetting, match="NKILITE_SPECIALIZATIONS"):
        kernel(np.ones((5, 8), np.float32))


def test_a_new_number_compiles_nothing(monkeypatch) -> None:
    from nkilite.native.library import Library

    compiled = []
    original = Library._compile
    monkeypatch.setattr(Library, "_compile", lambda self, sources: compiled.append(1) or original(self, sources))

    @nki.jit
    def kernel(x, scale, shift):
        tile = nl.load(x)
        nisa.tensor_scalar(tile, tile, nl.multiply, scale, op1=nl.add, operand1=shift)
        nisa.activation(tile, nl.exp, tile, scale=scale)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    kernel(X, 0.5, 0.25)
    compiled.clear()
    for scale, shift in ((0.1, 0.2), (-3.0, 0.0), (float("inf"), -0.0)):
        np.testing.assert_allclose(kernel(X, scale, shift), np.exp(scale * (X * scale + shift)), rtol=1e-5)
    assert not compiled
