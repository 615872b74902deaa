"""Races between the cores of a launch are reported at both lines."""

from __future__ import annotations

import inspect

import pytest
from cores_testing import half, launches, loaded, output
from races_testing import BOTH, RACES, X, around, race, rows

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors


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


# --- through runtime indices ------------------------------------------------------------------------------------------


def chosen(*says):
    """One through a runtime index, whose values are only there when simulated."""
    return race(*says, modes=("simulate",))


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
