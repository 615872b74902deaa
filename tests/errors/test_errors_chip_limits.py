"""Limits of the chip that every instruction shares, and rules of single instructions about values and modes."""

from __future__ import annotations

import numpy as np
import pytest
from errors_testing import MODES, Table, X, check, psum, sbuf, stored

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import notices
from nkilite.errors import (
    AccessPatternExceeded,
    InvalidOperand,
    InvalidReturn,
    PartitionsNotAdjacent,
    PartitionStartMisplaced,
    ShapeMismatch,
    UnsupportedDtype,
    UnsupportedOnTarget,
    WrongMemory,
)
from nkilite.ir.coverage import AccumulationUndefined

mistake = Table()
ALL = (np.arange(128 * 16, dtype=np.float32).reshape(128, 16),)


# --- partitions -----------------------------------------------------------------------------------------------


@mistake(PartitionStartMisplaced, "nisa.tensor_copy: dst covers partitions 32 to 95", "64 partitions from 0 or 64 on")
def half_at_a_quadrant(x):
    result, data = sbuf((128, 16)), sbuf((64, 16))
    nisa.tensor_copy(result[32:96], data)  # here


@mistake(PartitionStartMisplaced, "data covers partitions 8 to 11", "0 or 32 or 64 or 96", "nisa.dma_copy")
def few_inside_a_quadrant(x):
    result, data = sbuf((4, 16)), sbuf((128, 16))
    nisa.activation(result, nl.exp, data[8:12])  # here


@mistake(PartitionStartMisplaced, "nisa.nc_matmul: dst covers partitions 32 to 95", "64 partitions from 0 or 64 on")
def result_at_an_address(x):
    stationary, moving = sbuf((32, 64)), sbuf((32, 8))
    tile = nl.ndarray((64, 8), nl.float32, nl.psum, address=(32, 0))
    nisa.nc_matmul(tile, stationary, moving)  # here


@mistake(PartitionStartMisplaced, "nisa.iota: dst covers partitions 16 to 47")
def generated_on_gpsimd(x):
    tile = sbuf((64, 8), nl.int32)
    nisa.iota(tile[16:48], [[1, 8]])  # here


@mistake(PartitionStartMisplaced, "nisa.nc_stream_shuffle: dst covers partitions 32 to 63", "from 0 or 64 on")
def quadrants_of_the_other_operand(x):
    data, result = sbuf((64, 4)), sbuf((64, 4))
    nisa.nc_stream_shuffle(result[32:64], data, [0] * 32)  # here


@mistake(PartitionStartMisplaced, "stationary_scale covers partitions 6 to 9", "0 or 4 or 8 or 12 or 32", target="trn3")
def scales_between_places(x):
    data = nl.ndarray((32, 8), nl.float8_e4m3fn_x4)
    scale, result = sbuf((32, 8), nl.uint8), psum((8, 8), value=None)
    nisa.memset(data, 0)
    nisa.nc_matmul_mx(result, data, data, scale[6:10], scale[4:8])  # here


@mistake(PartitionsNotAdjacent, "partitions of src are 2 apart")
def every_other_partition(x):
    result, data = sbuf((8, 16)), sbuf((16, 16))
    nisa.tensor_copy(result, data[::2])  # here


# --- access patterns ------------------------------------------------------------------------------------------


@mistake(AccessPatternExceeded, "[[162, 2], [54, 2], [18, 2], [6, 2], [2, 2]]", "5 dimensions; the limit is 4")
def five_free_dimensions(x):
    data, result = sbuf((2, 3, 3, 3, 3, 3, 2)), sbuf((2, 32))
    nisa.tensor_copy(result, data[:, 0:2, 0:2, 0:2, 0:2, 0:2, 0])  # here


@mistake(AccessPatternExceeded, "a stride of -33000 elements; strides are from -32768 to 32767")
def backwards_too_far(x):
    data, result = sbuf((2, 40000), nl.bfloat16), sbuf((2, 2), nl.bfloat16)
    nisa.tensor_copy(result, data.ap([[40000, 2], [-33000, 2]], offset=33000))  # here


@mistake(AccessPatternExceeded, "[[32768, 2], [1, 32768]]", "a stride of 32768")
def rows_of_a_reduction(x):
    data, result = sbuf((2, 2, 32768), nl.int8), sbuf((2, 2))
    nisa.tensor_reduce(result, nl.maximum, data, axis=2)  # here


@mistake(AccessPatternExceeded, "70000 elements; the limit is 65536")
def too_many_elements(x):
    tile = nl.ndarray((2, 70000), nl.int8)
    nisa.memset(tile, 0)  # here


# --- values and modes -----------------------------------------------------------------------------------------


@mistake(InvalidOperand, "value is the float 3.0", "an int, as dst is uint8", "write 3 without a fraction: 3")
def float_for_integers(x):
    tile = nl.ndarray((4, 4), nl.uint8)
    nisa.memset(tile, 3.0)  # here


@mistake(UnsupportedOnTarget, "nisa.tensor_scalar with op0=relu needs trn3", "the target is trn2")
def operator_of_a_newer_chip(x):
    tile = sbuf()
    nisa.tensor_scalar(tile, tile, nl.relu, 0)  # here


@mistake(UnsupportedOnTarget, "nisa.range_select needs trn2 (gen3)", target="trn1")
def instruction_of_a_newer_chip(x):
    tile, bound = sbuf(), sbuf((64, 1))
    nisa.range_select(tile, tile, nl.less, nl.less, bound, bound)  # here


@mistake(InvalidOperand, "operand1 is 2.0", "None or 0, because op1=abs is unary")
def number_for_a_unary_operator(x):
    tile = sbuf()
    nisa.tensor_scalar(tile, tile, nl.add, 1.0, op1=nl.abs, operand1=2.0)  # here


@mistake(InvalidOperand, "dge_mode is none; expected unknown or hwdge")
def descriptors_of_a_transpose(x):
    data, result = sbuf((16, 32), nl.bfloat16), sbuf((32, 16), nl.bfloat16)
    nisa.dma_transpose(result, data, dge_mode=nisa.dge_mode.none)  # here


@mistake(InvalidOperand, "reduce_init is 0.5", "unless reduce_cmd is nisa.reduce_cmd.load_reduce", target="trn3")
def start_that_is_not_loaded(x):
    tile, total = sbuf(), sbuf((64, 1))
    reset = nisa.reduce_cmd.reset_reduce
    nisa.exponential(tile, tile, 0.0, total, reset, reduce_init=0.5)  # here


@mistake(InvalidOperand, "reverse0 is True; expected False")
def reversed_reduction(x):
    tile, total = sbuf(), sbuf((64, 1))
    nisa.tensor_scalar_reduce(tile, tile, nl.subtract, 1.0, nl.add, total, reverse0=True)  # here


@mistake(WrongMemory, "nl.rsqrt: x is in PSUM", "nisa.activation")
def rsqrt_of_psum(x):
    tile = psum()
    nl.rsqrt(tile)  # here


@mistake(UnsupportedDtype, "nisa.scalar_load: src has dtype uint32")
def unsigned_scalar(x):
    tile = sbuf((1, 1), nl.uint32)
    nisa.scalar_load(tile)  # here


@mistake(UnsupportedDtype, "src has dtype tfloat32")
def running_sum_of_tfloat32(x):
    tile, result = sbuf(dtype=nl.tfloat32), sbuf()
    nisa.tensor_scalar_cumulative(result, tile, nl.add, nl.add, 0.0)  # here


@mistake(ShapeMismatch, "src of shape (8, 2, 2, 4) has 4 dimensions; the instruction takes at most 3")
def search_in_four_dimensions(x):
    data, result = sbuf((8, 2, 2, 4)), sbuf((8, 8))
    nisa.max8(result, data)  # here


@mistake(InvalidOperand, "range_start is 16777200; expected positions within 2**24")
def positions_that_float32_rounds(x):
    tile, bound = sbuf(), sbuf((64, 1))
    nisa.range_select(tile, tile, nl.less, nl.less, bound, bound, range_start=(1 << 24) - 16)  # here


@mistake(InvalidOperand, "channel_multiplier or a step is 4294967296; expected an int32")
def step_of_33_bits(x):
    tile = sbuf((64, 8), nl.int32)
    nisa.iota(tile, [[1, 8]], channel_multiplier=1 << 32)  # here


@mistake(InvalidReturn, "a tensor in nl.hbm", "fix: allocate it with buffer=nl.shared_hbm")
def result_of_one_core(x):
    out = nl.ndarray(x.shape, x.dtype, nl.hbm)  # here
    nisa.dma_copy(out, x)
    return out


@mistake.parametrize
def test_mistake(mistake, mode, monkeypatch):
    check(mistake, mode, monkeypatch)


# --- what is allowed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_legal_places(mode):
    """DMA goes anywhere; engines go to halves, quadrants, and along any pattern that has four dimensions at heart."""

    def kernel(x):
        tile, result = sbuf((128, 16)), sbuf((128, 16))
        nisa.dma_copy(tile[3:100:7], x[3:100:7])
        nisa.tensor_copy(result[64:128], tile[0:64])
        nisa.tensor_copy(result[96:100], tile[32:36])
        deep = tile.reshape((128, 2, 1, 2, 2, 2))
        nisa.tensor_copy(result[0:64].reshape((64, 2, 2, 1, 2, 2)), deep[64:128])
        return stored(result)

    (x,) = ALL
    tile, wanted = np.zeros_like(x), np.zeros_like(x)
    tile[3:100:7] = x[3:100:7]
    wanted[64:128] = tile[0:64]
    wanted[96:100] = tile[32:36]
    wanted[0:64] = tile[64:128]
    np.testing.assert_array_equal(MODES[mode](kernel)(x), wanted)


def accumulating(target, write, accumulate, monkeypatch, mode):
    """Launch a matmul onto a PSUM tile that `write` has written."""

    def kernel(x):
        result, data = psum((32, 32), value=None), sbuf((32, 32))
        write(result, data)
        nisa.nc_matmul(result, data, data, accumulate=accumulate)
        return stored(nl.copy(result))

    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)
    return MODES[mode](kernel)(X)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("accumulate", [True, None])
def test_sums_onto_other_engines_results_are_undefined_before_trn3(mode, accumulate, monkeypatch):
    def whole(result, data):
        nisa.memset(result, 1.0)

    def part(result, data):
        nisa.tensor_copy(result[:, 4:9], data[:, 4:9])

    for write in (whole, part):
        monkeypatch.setattr(notices, "_given", set())  # which are given once
        with pytest.warns(AccumulationUndefined, match="undefined on trn2") as caught:
            accumulating("trn2", write, accumulate, monkeypatch, mode)
        assert [w.filename for w in caught] == [__file__]
        accumulating("trn3", write, accumulate, monkeypatch, mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_matmul_makes_a_tile_its_own(mode, monkeypatch):
    """Overwriting what another engine wrote begins a sum like any other."""

    def write(result, data):
        nisa.memset(result, 1.0)
        nisa.nc_matmul(result, data, data, accumulate=False)

    accumulating("trn2", write, True, monkeypatch, mode)


def test_comparing_a_scalar_is_written_down_alone():
    @nki.jit
    def kernel(x):
        scalar = nisa.scalar_load(sbuf((1, 1), nl.int32))
        with pytest.raises(TypeError, match="condition"):
            bool(scalar + 1 >= 5)
        return stored(sbuf())

    kernel(X)
