"""Passes over programs with loops: liveness, addresses, accumulation, staged operands, CPU memory, summaries."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import MemoryOverflow
from nkilite.ir.loops import loops
from nkilite.machine.engine import Engine
from nkilite.passes.follow_writes import FollowWrites
from nkilite.passes.liveness import lifetimes
from nkilite.profiling.summary import summarize
from nkilite.schedule.place import place

X = np.arange(128 * 64, dtype=np.float32).reshape(128, 64)
MODES = [pytest.param(nki.jit, id="compiled"), pytest.param(nki.simulate, id="simulate")]


@nki.jit
def kernel(x):
    out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
    carried = nl.ndarray((128, 64), dtype=x.dtype, name="carried")
    constant = nl.ndarray((128, 64), dtype=x.dtype, name="constant")
    nisa.dma_copy(constant, x)
    nisa.dma_copy(carried, x)

    def outer(i):
        first = nl.ndarray((128, 64), dtype=x.dtype, name="first")
        nisa.tensor_tensor(first, constant, constant, op=nl.add)

        def inner(j):
            temporary = nl.ndarray((128, 64), dtype=x.dtype, name="temporary")
            nisa.tensor_copy(temporary, first)
            nisa.tensor_tensor(carried, carried, temporary, op=nl.add)

        nl.fori_loop(0, 3, inner)
        second = nl.ndarray((128, 64), dtype=x.dtype, name="second")
        nisa.tensor_copy(second, carried)
        nisa.tensor_copy(carried, second)

    nl.fori_loop(0, 4, outer)
    nisa.dma_copy(out, carried)
    return out


def test_lifetimes() -> None:
    program = kernel.trace(X)
    outer, inner = loops(program)
    first, last = lifetimes(program)
    life = {b.name: (first[b.id], last[b.id]) for b in program.buffers if b.name}
    assert life["constant"] == (0, outer.end)  # read at the top of every iteration
    assert life["carried"] == (1, outer.end + 1)
    assert life["first"] == (outer.begin + 1, inner.end)  # read by every inner iteration
    assert life["temporary"] == (inner.begin + 1, inner.begin + 2)
    assert life["second"] == (inner.end + 1, inner.end + 2)


def test_what_is_read_in_later_iterations_is_not_overwritten() -> None:
    """`constant` is read at the top of the body alone; tiles made later in the body may not take its place."""
    np.testing.assert_array_equal(kernel(X), X + 4 * 3 * 2 * X)
    np.testing.assert_array_equal(nki.simulate(kernel)(X), X + 4 * 3 * 2 * X)
    schedule = kernel.compile(X).schedule
    program, placed = schedule.program, place(schedule)
    constant = next(b for b in program.buffers if b.name == "constant")
    where = placed.of(constant.id)
    low, high = where.offset, where.offset + 128 * where.pitch
    for name in ("first", "temporary", "second", "carried"):
        other = placed.of(next(b for b in program.buffers if b.name == name).id)
        assert other.offset >= high or other.offset + 128 * other.pitch <= low


def test_tiles_of_a_body_share_addresses() -> None:
    @nki.jit
    def chain(x):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        carried = nl.load(x)

        def body(i):
            tile = carried
            for _ in range(12):
                following = nl.ndarray((128, 12288), dtype=x.dtype)
                nisa.tensor_copy(following[:, 0:64], tile[:, 0:64])
                tile = following
            nisa.tensor_copy(carried, tile[:, 0:64])

        nl.fori_loop(0, 3, body)
        nisa.dma_copy(out, carried)
        return out

    np.testing.assert_array_equal(chain(X), X)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("looped", [False, True])
def test_overflow_in_a_loop(mode, looped) -> None:
    """Three tiles are read before three others are written: the next iteration still needs the first ones."""

    def crowded(x):
        out = nl.ndarray((128, 1), dtype=x.dtype, buffer=nl.shared_hbm)
        tiles = [nl.ndarray((128, 12288), dtype=x.dtype) for _ in range(6)]
        column = nl.ndarray((128, 1), dtype=x.dtype)
        for tile in tiles[:3]:
            nisa.memset(tile, 2)

        def body(i):
            for tile in tiles[:3]:
                nisa.tensor_copy(column, tile[:, 0:1])
            for tile in tiles[3:]:
                nisa.memset(tile, 0)

        if looped:
            nl.fori_loop(0, 2, body)
        else:
            body(0)
        nisa.dma_copy(out, column)
        return out

    if looped:
        with pytest.raises(MemoryOverflow, match="SBUF"):
            mode(crowded)(X)
    else:
        np.testing.assert_array_equal(mode(crowded)(X), np.full((128, 1), 2))


def names(program):
    return [i.signature.name for i in program]


def test_accumulation_is_zeroed_before_the_loop_that_carries_it() -> None:
    @nki.jit
    def accumulating(x):
        out = nl.ndarray((64, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        total = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum, name="total")

        def outer(i):
            own = nl.ndarray((64, 64), dtype=nl.float32, buffer=nl.psum, name="own")
            nisa.nc_matmul(own, tile, tile)
            nisa.nc_matmul(own, tile, tile)
            nl.fori_loop(0, 2, lambda j: nisa.nc_matmul(total, tile, tile) and None)

        nl.fori_loop(0, 3, outer)
        nisa.dma_copy(out, nl.copy(total))
        return out

    program = FollowWrites().run(accumulating.trace(X))
    (zeroing,) = [i for i in program if i.signature.name == "fill_unwritten"]
    assert zeroing.access(zeroing.signature.operand("dst"))[0].name == "total"
    assert zeroing.index + 1 == loops(program)[0].begin
    matmuls = [i for i in program if i.signature.name == "nc_matmul"]
    assert [i.signature.accumulate for i in matmuls] == [False, True, True]
    small = X[:, :64] % 8
    np.testing.assert_array_equal(accumulating(small), 6 * (small.T @ small))
    np.testing.assert_array_equal(nki.simulate(accumulating)(small), 6 * (small.T @ small))


def test_overlapping_operands_are_staged_inside_the_loop() -> None:
    @nki.jit
    def shifting(x):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nl.fori_loop(0, 5, lambda i: nisa.tensor_copy(tile[:, 1:], tile[:, :-1]) and None)
        nisa.dma_copy(out, tile)
        return out

    program = shifting.compile(X).program
    (loop,) = loops(program)
    assert names(program)[loop.begin:loop.end + 1] == ["for_begin", "tensor_copy", "tensor_copy", "for_end"]
    expected = np.concatenate([np.repeat(X[:, :1], 5, axis=1), X[:, :-5]], axis=1)
    np.testing.assert_array_equal(shifting(X), expected)
    np.testing.assert_array_equal(nki.simulate(shifting)(X), expected)


def test_equal_runtime_indices_need_no_stage_and_different_ones_do() -> None:
    @nki.jit
    def updating(x):
        out = nl.ndarray((128, 64), dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)

        def body(i):
            nisa.tensor_scalar(tile[:, nl.ds(i, 2)], tile[:, nl.ds(i, 2)], op0=nl.multiply, operand0=2.0)
            nisa.tensor_copy(tile[:, nl.ds(i, 2)], tile[:, nl.ds(i + 1, 2)])

        nl.fori_loop(0, 8, body, step=2)
        nisa.dma_copy(out, tile)
        return out

    program = updating.compile(X).program
    (loop,) = loops(program)
    body = names(program)[loop.begin + 1:loop.end]
    assert body == ["tensor_scalar", "scalar_compute", "tensor_copy", "tensor_copy"]
    expected = X.copy()
    for i in range(0, 8, 2):
        expected[:, i:i + 2] *= 2
        expected[:, i:i + 2] = expected[:, i + 1:i + 3].copy()
    np.testing.assert_array_equal(updating(X), expected)
    np.testing.assert_array_equal(nki.simulate(updating)(X), expected)


def test_summary_counts_iterations() -> None:
    summary = summarize(kernel.trace(X))
    control = 1 + 4 * (1 + 3 + 1)  # the outer beginning; per iteration an inner one, three inner ends and its own end
    assert summary.instructions == {Engine.dma: 3, Engine.vector: 4 * (1 + 3 * 2 + 2), Engine.sync: control}
    assert (summary.hbm_read_bytes, summary.hbm_write_bytes) == (2 * X.nbytes, X.nbytes)
