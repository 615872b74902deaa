"""Races between cores: planted ones are reported at both lines, what is apart or ordered is not."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
from cores_testing import half, launches, loaded, output

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.ir import values

BOTH = (0, 1)
X = np.ones((8, 16), np.float32)
RACES = []
CLEAN = []


def race(*says, modes=("simulate", "compiled")):
    """A kernel body `(core, x, out, tile)` with a race between its lines that end in `# one` and `# other`."""

    def add(body):
        RACES.extend(pytest.param(body, says, mode, id=f"{body.__name__}-{mode}") for mode in modes)
        return body

    return add


def chosen(*says):
    """One through a runtime index, whose values are only there when simulated."""
    return race(*says, modes=("simulate",))


def rows(first, count=4):
    """In a kernel: a tile with the numbers of some rows."""
    tile = nl.ndarray((count, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.iota(tile, [[1, 1]], first, 1)
    return tile


def clean(body):
    CLEAN.append(pytest.param(body, id=body.__name__))
    return body


def around(body):
    """The kernel of a body."""

    def kernel(x):
        out = output(x)
        body(nl.program_id(0), x, out, loaded(x))
        return out

    return kernel


# --- planted ----------------------------------------------------------------------------------------------------------


@race("hbm", "core 0 writes bytes [0, 512) in nisa.dma_copy, and core 1 writes them")
def both_write_everything(core, x, out, tile):
    nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=float(1 - core))
    nisa.dma_copy(out, tile)  # one # other


@race("the cores race for x", "core 0 reads", "core 1 writes")
def both_update_in_place(core, x, out, tile):
    nisa.core_barrier(out, BOTH)
    again = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(again, x)  # one
    nisa.dma_copy(x, again)  # other
    nisa.dma_copy(out, again)


@race("core 0 writes bytes [192, 256) in", "and core 1 writes them")
def a_row_too_many(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out[:4], tile[:4])  # one
    else:
        nisa.dma_copy(out[3:], tile[3:])  # other


@race("core 0 writes", "core 1 reads them")
def read_without_barrier(core, x, out, tile):
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])  # one
    nisa.dma_copy(tile[half(1 - core, 8)], out[half(1 - core, 8)])  # other


@race("core 0 reads bytes [256, 512)", "core 1 writes them")
def read_of_what_the_other_writes(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(tile[:4], out[4:])  # one
    else:
        nisa.dma_copy(out, tile)  # other


@race("core 0 writes", "core 1 reads")
def read_before_the_barrier(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)  # one
    else:
        nisa.dma_copy(tile, out)  # other
    nisa.core_barrier(out, BOTH)


@race("core 0 writes", "core 1 writes")
def written_again_after_the_barrier(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)
    nisa.core_barrier(out, BOTH)
    if core == 0:
        nisa.dma_copy(out[2:6], tile[2:6])  # one
    else:
        nisa.dma_copy(out[5:7], tile[5:7])  # other


@race("core 0 reads", "core 1 writes")
def only_one_of_two_barriers(core, x, out, tile):
    between = output(x)
    nisa.dma_copy(between[half(core, 8)], tile[half(core, 8)])
    nisa.core_barrier(between, BOTH)
    if core == 0:
        nisa.dma_copy(tile, between)  # one
    else:
        nisa.dma_copy(between[4:], tile[4:])  # other
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@race("core 0 writes bytes [32, 48)", "core 1 writes them")
def columns_that_overlap(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out[:, :12], tile[:, :12])  # one
    else:
        nisa.dma_copy(out[:, 8:], tile[:, 8:])  # other


@race("core 0 writes bytes [36, 40)", "core 1 writes them")
def columns_that_interleave_and_meet_once(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out[:, 1::2], tile[:, 1::2])  # one
    else:
        nisa.dma_copy(out[:, 0:9:2], tile[:, 0:9:2])
        nisa.dma_copy(out[:1, 9:10], tile[:1, 9:10])  # other


@race("core 0 writes", "core 1 writes")
def other_shape_of_the_same_bytes(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out[4:5], tile[:1])  # one
    else:
        nisa.dma_copy(out.reshape((128,))[79:81].reshape((1, 2)), tile[:1, :2])  # other


@race("core 0 writes", "core 1 reads")
def named_tensor(core, x, out, tile):
    scratch = output(x, "scratch")
    if core == 0:
        nisa.dma_copy(scratch, tile)  # one
    else:
        nisa.dma_copy(tile, scratch)  # other
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@race("the cores race for x", "core 0 writes", "core 1 reads")
def an_argument(core, x, out, tile):
    nisa.core_barrier(out, BOTH)
    if core == 0:
        nisa.dma_copy(x[:1], tile[:1])  # one
    else:
        nisa.dma_copy(tile, x)  # other
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@race("core 0 writes", "core 1 reads")
def an_exchange_orders_nothing_after_it(core, x, out, tile):
    nisa.sendrecv(tile, tile, 1 - core, 1 - core, pipe_id=0)
    if core == 0:
        nisa.dma_copy(out, tile)  # one
    else:
        nisa.dma_copy(tile, out)  # other


@race("core 0 writes", "core 1 writes")
def far_apart_in_one_phase(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)  # one
    for _ in range(20):
        nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=1.0)
    if core == 1:
        nisa.dma_copy(out, tile)  # other


@race("core 0 writes", "core 1 writes")
def in_a_loop_of_the_device(core, x, out, tile):
    nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=float(core))

    def turn(i):
        nisa.dma_copy(out, tile)  # one # other

    nl.fori_loop(0, 3, turn)


@race("core 0 reads", "core 1 writes")
def from_one_turn_to_the_next(core, x, out, tile):
    def turn(i):
        if core == 0:
            nisa.dma_copy(out[:4], tile[:4])
        nisa.core_barrier(out, BOTH)
        if core == 0:
            nisa.dma_copy(tile[4:], out[4:])  # one

    def other_turn(i):
        nisa.dma_copy(out[4:], tile[4:])  # other
        nisa.core_barrier(out, BOTH)

    nl.fori_loop(0, 2, other_turn if core else turn)


@race("core 0 writes", "core 1 reads")
def after_a_loop_with_barriers(core, x, out, tile):
    def turn(i):
        nisa.core_barrier(out, BOTH)
        if core == 0:
            nisa.dma_copy(out, tile)  # one

    nl.fori_loop(0, 2, turn)
    if core == 1:
        nisa.dma_copy(tile, out)  # other


@race("core 0 writes", "core 1 reads")
def before_a_loop_with_barriers(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)  # one

    def turn(i):
        if core == 1:
            nisa.dma_copy(tile, out)  # other
        nisa.core_barrier(out, BOTH)

    nl.fori_loop(0, 1, turn)


@race("core 0 writes", "core 1 reads")
def around_a_loop_that_may_not_run(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)  # one
    count = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(count, 0)

    def turn(i):
        nisa.core_barrier(out, BOTH)

    nl.fori_loop(0, nisa.register_alloc(count), turn)
    if core == 1:
        nisa.dma_copy(tile, out)  # other


@race("core 0 writes", "core 1 writes")
def sums_of_different_parts(core, x, out, tile):
    other = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.tensor_scalar(tile, tile, op0=nl.multiply, operand0=float(core))
    nisa.sendrecv(tile, other, 1 - core, 1 - core, pipe_id=0)
    nisa.tensor_tensor(tile, tile, other, op=nl.subtract)  # not commutative
    nisa.dma_copy(out, tile)  # one # other


@race("core 0 writes", "core 1 writes")
def what_both_wrote_is_written_over(core, x, out, tile):
    nisa.dma_copy(out, tile)  # other
    if core == 0:
        nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=1.0)
        nisa.dma_copy(out, tile)  # one


@race("core 0 writes", "core 1 writes")
def the_same_but_a_row_apart(core, x, out, tile):
    nisa.memset(tile, 2.0)
    nisa.dma_copy(out[core : core + 4], tile[0:4])  # one # other


@race("core 0 reads", "core 1 writes")
def read_before_the_same_is_written(core, x, out, tile):
    nisa.core_barrier(out, BOTH)
    if core == 0:
        nisa.dma_copy(tile, x)  # one
    nisa.memset(tile, 2.0)
    nisa.dma_copy(x, tile)  # other
    nisa.core_barrier(out, BOTH)
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@race("core 0 writes", "core 1 writes")
def the_same_parts_of_tiles_that_differ(core, x, out, tile):
    nisa.tensor_scalar(tile[:, half(1, 16)], tile[:, half(1, 16)], op0=nl.multiply, operand0=float(core))
    nisa.dma_copy(out, tile)  # one # other


@race("core 0 writes", "core 1 writes")
def zeros_that_a_loop_writes_over(core, x, out, tile):
    zeros = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
    nisa.memset(zeros, 0.0)
    nisa.dma_copy(out, zeros)  # one # other

    def turn(i):
        nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core))
        nisa.dma_copy(out, tile)

    if core == 0:
        nisa.dma_copy(tile, tile)  # the cores differ
    nl.fori_loop(0, 2, turn)


# --- through runtime indices ------------------------------------------------------------------------------------------


@chosen("core 0 writes bytes [192, 256) in nisa.dma_copy, and core 1 writes them")
def rows_that_both_scatter(core, x, out, tile):
    nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core))
    nisa.dma_copy(out.vector_select(0, rows(3 * core)), tile[:4])  # one # other


@chosen("core 0 writes bytes [256, 512)", "core 1 reads them")
def gathered_before_the_barrier(core, x, out, tile):
    if core == 0:
        nisa.dma_copy(out, tile)  # one
    else:
        nisa.dma_copy(tile[:4], out.vector_select(0, rows(4)))  # other
    nisa.core_barrier(out, BOTH)


@chosen("core 0 reads bytes [320, 384)", "core 1 writes them")
def scattered_onto_what_the_other_reads(core, x, out, tile):
    nisa.core_barrier(out, BOTH)
    if core == 0:
        nisa.dma_copy(tile[:1], x[5:6])  # one
    else:
        nisa.dma_copy(x.vector_select(0, rows(2)), tile[:4])  # other
    nisa.core_barrier(out, BOTH)
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@chosen("core 0 writes bytes [192, 256)", "core 1 writes them")
def turns_that_reach_too_far(core, x, out, tile):
    nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core))

    def turn(i):
        nisa.dma_copy(out.select(0, i + 3 * core), tile[0])  # one # other

    nl.fori_loop(0, 4, turn)


@chosen("core 0 reads bytes [448, 512)", "core 1 writes them")
def the_last_turn_alone(core, x, out, tile):
    nisa.core_barrier(out, BOTH)

    def turn(i):
        if core == 0:
            nisa.dma_copy(tile[0], x.select(0, i * 2 + 1))  # one
        else:
            nisa.dma_copy(x.select(0, i + 4), tile[0])  # other
        nisa.core_barrier(out, BOTH)

    nl.fori_loop(0, 4, turn)
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


@chosen("core 0 writes bytes [128, 192)", "core 1 writes them")
def rows_that_registers_choose(core, x, out, tile):
    number = nl.ndarray((1, 1), dtype=nl.int32, buffer=nl.sbuf)
    nisa.memset(number, 2)
    register = nisa.register_alloc(number)
    nisa.tensor_scalar(tile, tile, op0=nl.add, operand0=float(core))
    if core == 0:
        nisa.dma_copy(out.select(0, register), tile[0])  # one
    else:
        nisa.dma_copy(out[2:4], tile[2:4])  # other


@chosen("core 0 writes", "core 1 writes")
def sums_scattered_by_both(core, x, out, tile):
    between = output(x)
    if core == 0:
        nisa.dma_copy(between, tile)
    nisa.core_barrier(between, BOTH)
    there = between.vector_select(0, rows(core))
    nisa.dma_compute(there, [tile[:4], there], nl.add)  # one # other
    nisa.core_barrier(between, BOTH)
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])


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


# --- in order, or apart -----------------------------------------------------------------------------------------------


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


@race("core 0 writes", "and core 1 writes them")
def everything_by_both_and_then_a_half_each(core, x, out, tile):
    zeros = loaded(x)
    nisa.memset(zeros, 0.0)
    nisa.dma_copy(out, zeros)  # one
    nisa.dma_copy(out[half(core, 8)], tile[half(core, 8)])  # other


@race("core 0 writes", "and core 1 writes them")
def the_same_in_the_end_but_read_before(core, x, out, tile):
    own = loaded(x)
    nisa.memset(own, float(core))
    nisa.dma_copy(out, own)  # one # other
    if core == 1:
        nisa.dma_copy(own, out)
    nisa.dma_copy(out, tile)


@race("core 0 writes", "and core 1 writes them")
def the_same_in_the_end_but_chosen_rows_are_read_before(core, x, out, tile):
    own = loaded(x)
    nisa.memset(own, float(core))
    nisa.dma_copy(out, own)  # one # other
    nisa.dma_copy(own[:4], out.ap([[16, 4], [1, 16]], vector_offset=rows(2), indirect_dim=0))
    nisa.dma_copy(out, tile)


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
def test_one_array_that_is_two_arguments(mode, monkeypatch):
    def kernel(x, y):
        core = nl.program_id(0)
        nisa.dma_copy(y[half(1 - core, 8)], loaded(x[half(core, 8)]))
        return y

    monkeypatch.setenv("NKILITE_RACES", "error")
    launch, array = launches(kernel)[mode], X.copy()
    launch(array, X.copy())
    with pytest.raises(errors.DataRace, match="the cores race for x"):
        launch(array, array)


def test_what_is_not_found_out(monkeypatch):
    monkeypatch.setattr(values, "_MOST_COMPARED", 1)
    with pytest.warns(errors.RaceWarning, match="unless they write the same there"):
        nki.jit(around(the_same_from_many_tiles_at_addresses))[2](X.copy())


@pytest.mark.parametrize(("body", "says", "mode"), RACES)
def test_planted_races(body, says, mode, monkeypatch):
    monkeypatch.setenv("NKILITE_RACES", "error")
    with pytest.raises(errors.DataRace) as caught:
        launches(around(body))[mode](X.copy())
    message = str(caught.value)
    assert all(text in message for text in says), message
    lines, first = inspect.getsourcelines(body)
    marked = {mark: first + i for i, line in enumerate(lines) for mark in ("# one", "# other") if mark in line}
    assert caught.value.location.line == marked["# one"], message
    assert f"core 1 at {__file__}:{marked['# other']}: " in message


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
@pytest.mark.parametrize("body", CLEAN)
def test_no_false_reports(body, mode, monkeypatch):
    monkeypatch.setenv("NKILITE_RACES", "error")
    launches(around(body))[mode](X.copy())


@pytest.mark.parametrize("mode", ["simulate", "compiled"])
def test_what_the_setting_does(mode, monkeypatch):
    launch = launches(around(both_write_everything))[mode]
    with pytest.warns(errors.RaceWarning, match="core 1 at .*test_races.py") as caught:
        launch(X)
    assert {w.filename for w in caught} == {__file__}
    monkeypatch.setenv("NKILITE_RACES", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        launch(X)
    monkeypatch.setenv("NKILITE_RACES", "error")
    with pytest.raises(errors.DataRace):
        launch(X)
    monkeypatch.setenv("NKILITE_RACES", "yes")
    with pytest.raises(errors.InvalidSetting, match="warn, error or off"):
        launch(X)


def test_a_kernel_from_the_disk_cache_warns_again(tmp_path, monkeypatch):
    monkeypatch.setenv("NKILITE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("NKILITE_VERIFY", "0")
    for _ in range(2):
        with pytest.warns(errors.RaceWarning):
            nki.jit(around(both_write_everything))[2](X)
