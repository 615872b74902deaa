"""What cores do apart from each other, or in order, is no race."""

from __future__ import annotations

import pytest
from cores_testing import half, launches, loaded, output
from races_testing import BOTH, CLEAN, X, around, clean, rows

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.ir import values


@clean
def rows_scattered_apart(core, x, out, tile):
    nisa.dma_copy(out.vector_select(0, rows(4 * core)), tile[:4])
    nisa.core_barrier(out, BOTH)
    nisa.dma_copy(tile[:4], out.vector_select(0, rows(2)))


@clean
def the_same_scattered_by_both(core, x, out, tile):
    nisa.dma_copy(out.vector_select(0, rows(0, 8)), tile)
    nisa.dma_copy(tile, out.vector_select(0, rows(0, 8)))


@clean
def turns_apart(core, x, out, tile):
    def turn(i):
        nisa.dma_copy(out.select(0, i * 2 + core), tile[0])
        nisa.core_barrier(out, BOTH)
        nisa.dma_copy(tile[0], out.select(0, i * 2 + (1 - core)))
        nisa.core_barrier(out, BOTH)

    nl.fori_loop(0, 4, turn)


@clean
def rows_out_of_bounds_are_nowhere(core, x, out, tile):
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])
    nisa.core_barrier(out, BOTH)
    if core == 0:
        nisa.dma_copy(out.vector_select(0, rows(6)), tile[:4], oob_mode=nisa.oob_mode.skip)
    else:
        nisa.dma_copy(tile[:6], out[:6])


@clean
def halves(core, x, out, tile):
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@clean
def the_same_on_both_cores(core, x, out, tile):
    nisa.dma_copy(out, tile)
    nisa.dma_copy(tile, out)
    nisa.dma_copy(out, tile)


@clean
def columns(core, x, out, tile):
    nisa.dma_copy(out[:, half(core, 16)], tile[:, half(core, 16)])


@clean
def every_other_row(core, x, out, tile):
    for row in range(core, 8, 2):
        nisa.dma_copy(out[row : row + 1], tile[row : row + 1])


@clean
def every_other_column(core, x, out, tile):
    nisa.dma_copy(out[:, core::2], tile[:, core::2])


@clean
def blocks_of_a_checkerboard(core, x, out, tile):
    for i in range(2):
        j = (i + core) % 2
        nisa.dma_copy(out[half(i, 8), half(j, 16)], tile[half(i, 8), half(j, 16)])


@clean
def read_after_the_barrier(core, x, out, tile):
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])
    nisa.core_barrier(out, BOTH)
    nisa.dma_copy(tile, out)


@clean
def an_exchange_is_a_meeting(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)
    nisa.sendrecv(tile, tile, 1 - core, 1 - core, pipe_id=0)
    if core == 1:
        nisa.dma_copy(tile, out)


@clean
def one_core_alone(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)
        nisa.dma_copy(tile, out)


@clean
def private_memory(core, x, out, tile):
    own = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.private_hbm)
    nisa.dma_copy(own, tile)
    nisa.dma_copy(out[half(core, 8)], own[half(core, 8)])


@clean
def both_leave_the_same_sum(core, x, out, tile):
    other = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(tile[:, half(0, 16)], tile[:, half(0, 16)], op0=nl.multiply, operand0=float(core))
    nisa.tensor_scalar(tile[:, half(1, 16)], tile[:, half(1, 16)], op0=nl.add, operand0=float(core))
    nisa.sendrecv(tile, other, 1 - core, 1 - core, pipe_id=0)
    for i in range(4):
        columns = slice(4 * i, 4 * i + 4)
        nisa.tensor_tensor(tile[:, columns], tile[:, columns], other[:, columns], op=nl.add)
    nisa.dma_copy(out, tile)
    nisa.dma_copy(tile, out)  # after it has written the same


@clean
def both_leave_the_same_maximum(core, x, out, tile):
    nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=float(core))
    nisa.sendrecv_compute(tile, tile, 1 - core, 1 - core, reduce_op=nl.maximum)
    nisa.dma_copy(out[half(0, 8)], tile[half(0, 8)])
    nisa.dma_copy(out[half(1, 8)], tile[half(1, 8)])


@clean
def each_keeps_its_own_in_its_place(core, x, out, tile):
    """Whatever order the places are written in."""
    other = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    both = nl.ndarray((8, 2, 16), dtype=tile.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=float(core))
    nisa.tensor_copy(both[:, core], tile)
    nisa.sendrecv(tile, other, 1 - core, 1 - core, pipe_id=0)
    nisa.tensor_copy(both[:, 1 - core], other)
    nisa.activation(both, nl.exp, both)
    nisa.tensor_tensor(tile, both[:, 0], both[:, 1], op=nl.subtract)
    nisa.dma_copy(out, tile)


@clean
def zeros_that_both_write(core, x, out, tile):
    zeros = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.memset(zeros, 0.0)
    nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core))
    nisa.dma_copy(out, zeros)
    nisa.core_barrier(out, BOTH)
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@clean
def zeros_before_a_loop(core, x, out, tile):
    zeros = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.memset(zeros, 0.0)
    nisa.dma_copy(out, zeros)
    nisa.core_barrier(out, BOTH)

    def turn(i):
        nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core))
        nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])

    nl.fori_loop(0, 2, turn)


@clean
def what_one_left_before_the_barrier_is_the_same_for_both(core, x, out, tile):
    between = output(x)
    nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core))
    nisa.dma_copy(between[half(core, 8)], tile[half(core, 8)])
    nisa.core_barrier(between, BOTH)
    nisa.dma_copy(tile, between)
    nisa.dma_copy(out, tile)


@clean
def tiles_of_the_same_name(core, x, out, tile):
    nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=1.0)
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@clean
def barriers_in_turns(core, x, out, tile):
    def turn(i):
        nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])
        nisa.core_barrier(out, BOTH)
        nisa.dma_copy(tile[half(1 - core, 8)], out[half(1 - core, 8)])
        nisa.core_barrier(out, BOTH)

    nl.fori_loop(0, 3, turn)


@clean
def loop_that_runs_once(core, x, out, tile):
    def turn(i):
        if core == 1:
            nisa.dma_copy(tile, x)
        nisa.core_barrier(out, BOTH)
        if core == 0:
            nisa.dma_copy(x, tile)

    nl.fori_loop(0, 1, turn)
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@clean
def the_same_in_the_end(core, x, out, tile):
    """Whoever is last, the last that it writes is the same; nobody looks at it before."""
    own = loaded(x)
    nisa.memset(own, float(core))
    nisa.dma_copy(out, own)
    nisa.dma_copy(out, tile)
    nisa.dma_copy(out[2:4], tile[4:6])


@clean
def everything_by_both_in_two_steps(core, x, out, tile):
    zeros = loaded(x)
    nisa.memset(zeros, 0.0)
    nisa.dma_copy(out, zeros)
    nisa.dma_copy(out[:4], tile[:4])


@clean
def the_same_from_many_tiles_at_addresses(core, x, out, tile):
    """All tiles with an address are in one space."""
    other = loaded(x)
    nisa.tensor_scalar(other, other, op0=nl.add, operand0=float(core))
    last = tile
    for i in range(1200):
        sums = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf, address=(0, 16384 + x.shape[1] * 4 * i))
        nisa.tensor_tensor(sums, last, tile, op=nl.add)
        last = sums
    nisa.dma_copy(out, last)


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
@pytest.mark.parametrize("body", CLEAN)
def test_no_false_reports(body, mode, monkeypatch):
    monkeypatch.setenv("NKILITE_RACES", "error")
    launches(around(body))[mode](X.copy())


def test_what_is_not_found_out(monkeypatch):
    monkeypatch.setattr(values, "_MOST_COMPARED", 1)
    with pytest.warns(errors.RaceWarning, match="unless they write the same there"):
        nki.jit(around(the_same_from_many_tiles_at_addresses))[2](X.copy())
