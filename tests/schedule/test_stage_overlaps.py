"""Operands that would be overwritten while they are read are copied first, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.ir.program import Program
from nkilite.ir.verifier import verify
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.stage_overlaps import StageOverlaps
from nkilite.testing import make


def new(shape: tuple[int, ...], address: Any = None, dtype: Any = "float32") -> Any:
    return nl.ndarray(shape, dtype=dtype, buffer=nl.sbuf, address=address)


def store(data: Any) -> Any:
    result = nl.ndarray(data.shape, dtype=data.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(result, data)
    return result


CASES = {
    # (written, read) slices of a [16, 64] tile: whether the read one must be staged
    "shifted right": (np.s_[:, 1:], np.s_[:, :-1], True),
    "shifted left": (np.s_[:, :-1], np.s_[:, 1:], True),
    "itself": (np.s_[:, 4:9], np.s_[:, 4:9], False),
    "apart": (np.s_[:, :32], np.s_[:, 32:], False),
    "interleaved": (np.s_[:, ::2], np.s_[:, 1::2], False),
    "interleaved, crossing": (np.s_[:, ::2], np.s_[:, 32:], True),
    "other partitions": (np.s_[:8], np.s_[8:], False),
    "some partitions": (np.s_[:9], np.s_[7:], True),
    "reversed": (np.s_[:, ::-1], np.s_[:, :], True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("memory", ["sbuf", "hbm"])
def test_slices_of_one_buffer(case: str, memory: str) -> None:
    written, read, staged = CASES[case]

    def kernel(x: Any) -> Any:
        if memory == "hbm":
            nisa.dma_copy(x[written], x[read])
            return x
        data = new(x.shape)
        nisa.dma_copy(data, x)
        # Two partition ranges of one tile only meet in DMA; copies between engines keep their partitions.
        copy = nisa.dma_copy if data[written].offset // 64 != data[read].offset // 64 else nisa.tensor_copy
        copy(data[written], data[read])
        return store(data)

    x = make((16, 64), "float32")
    expected = x.copy()
    expected[written] = x[read]
    np.testing.assert_array_equal(nki.simulate(kernel)(x.copy()), expected)
    np.testing.assert_array_equal(nki.jit(kernel)(x.copy()), expected)
    assert _staged(nki.jit(kernel).trace(x)) == staged


def _staged(program: Program) -> int:
    """How many instructions the pass adds; the result must verify."""
    before = len(program)
    StageOverlaps().run(Schedule(program))
    verify(program)
    return len(program) - before


@pytest.mark.parametrize(("shift", "staged"), [(0, 0), (32, 1), (-32, 1), (64, 0), (-64, 0)])
def test_tiles_aliased_by_address(shift: int, staged: int) -> None:
    def kernel(x: Any) -> Any:
        one, other = new((8, 16), (0, 1024)), new((8, 16), (0, 1024 + shift))
        nisa.dma_copy(one, x)
        nisa.tensor_copy(other, one)
        return store(other)

    x = make((8, 16), "float32")
    np.testing.assert_array_equal(nki.jit(kernel)(x), nki.simulate(kernel)(x))
    assert _staged(nki.jit(kernel).trace(x)) == staged


def test_reinterpreted_in_place() -> None:
    """A narrower view at the same address overlaps, however equal the shapes are."""

    def kernel(x: Any) -> Any:
        data = new((8, 64))
        nisa.dma_copy(data, x)
        nisa.tensor_copy(data.view(nl.bfloat16)[:, :64], data)
        return store(data.view(nl.bfloat16)[:, :64])

    x = make((8, 64), "float32")
    np.testing.assert_array_equal(nki.jit(kernel)(x), nki.simulate(kernel)(x))
    assert _staged(nki.jit(kernel).trace(x)) == 1


def test_instructions_that_move_elements_are_never_in_place() -> None:
    def kernel(x: Any) -> Any:
        data = new((32, 32))
        nisa.dma_copy(data, x)
        nisa.dma_transpose(data, data)
        return store(data)

    x = make((32, 32), "float32")
    np.testing.assert_array_equal(nki.jit(kernel)(x), x.T)
    assert _staged(nki.jit(kernel).trace(x)) == 1


def test_gather_from_the_tensor_it_writes() -> None:
    """Also the index tile, when it lies where the result goes."""

    def kernel(x: Any, where: Any) -> Any:
        index = new((4, 8), dtype="int32")
        nisa.dma_copy(index[:, :1], where)
        nisa.dma_copy(x[1:5], x.vector_select(0, index[:, :1]))
        nisa.dma_copy(index.view(nl.float32), x.vector_select(0, index[:, :1]))
        return x, store(index.view(nl.float32))

    x, where = make((6, 8), "float32"), np.array([[2], [1], [0], [5]], np.int32)
    expected = x.copy()
    expected[1:5] = x[where[:, 0]]
    for run in (nki.jit, nki.simulate):
        changed, gathered = run(kernel)(x.copy(), where)
        np.testing.assert_array_equal(changed, expected)
        np.testing.assert_array_equal(gathered, expected[where[:, 0]])


def test_names_and_dependencies_follow_their_instructions() -> None:
    def kernel(x: Any) -> Any:
        data = new((8, 16))
        first = nisa.dma_copy(data, x, name="load")
        nisa.tensor_copy(data[:, 1:], data[:, :-1], name="shift").depends_on(first)
        return store(data)

    program = nki.jit(kernel).trace(make((8, 16), "float32"))
    StageOverlaps().run(Schedule(program))
    named = {i.name: (i.index, i.signature.name) for i in program if i.name}
    assert named == {"load": (0, "dma_copy"), "shift": (2, "tensor_copy")}
    assert program.dependencies == [(2, 0)]
