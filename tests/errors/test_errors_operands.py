"""Mistakes in the arguments of instructions and tensors: shapes, dtypes, engines, operators, options, kinds."""

from __future__ import annotations

import numpy as np
from errors_testing import Table, X, check, psum, sbuf

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    BroadcastDestination,
    DtypeMismatch,
    FreeSizeExceeded,
    InvalidCall,
    InvalidOperand,
    OverlappingDestination,
    PartitionLimitExceeded,
    ShapeMismatch,
    UnknownOperator,
    UnsupportedDtype,
    UnsupportedEngine,
    UnsupportedOnTarget,
)

mistake = Table()


# --- destinations ---------------------------------------------------------------------------------------------


@mistake(BroadcastDestination, "nisa.tensor_copy: dst of shape (64, 32) repeats dimension 1", "32 elements")
def repeated_destination(x):
    one, data = sbuf((64, 1)), sbuf((64, 32))
    nisa.tensor_copy(one.broadcast(1, 32), data)  # here


@mistake(BroadcastDestination, "nisa.dma_copy: dst of shape (64, 4, 8) repeats dimension 1")
def repeated_destination_of_dma(x):
    out = nl.ndarray((64, 1, 8), nl.float32, nl.shared_hbm)
    nisa.dma_copy(out.ap([[8, 64], [0, 4], [1, 8]]), sbuf((64, 4, 8)))  # here


@mistake(OverlappingDestination, "nisa.dma_copy: the access pattern [[8, 64], [1, 32]] of dst overlaps itself")
def destination_with_rows_over_each_other(x):
    out = nl.ndarray((64, 32), nl.float32, nl.shared_hbm)
    nisa.dma_copy(out.ap([[8, 64], [1, 32]]), sbuf((64, 32)))  # here


@mistake(OverlappingDestination, "nisa.activation: dst and reduce_res share memory", "apart")
def results_in_one_place(x):
    data, dst = sbuf((64, 32)), nl.ndarray((64, 32), nl.float32, nl.sbuf, address=(0, 512))
    aliased = nl.ndarray((64, 1), nl.float32, nl.sbuf, address=(0, 512 + 12))
    nisa.activation(  # here
        dst[:, 0:8], nl.exp, data[:, 0:8], reduce_op=nl.add, reduce_res=aliased, reduce_cmd=nisa.reduce_cmd.reduce,
    )


# --- shapes ---------------------------------------------------------------------------------------------------


@mistake(ShapeMismatch, "(64, 32)", "(64, 16)", "data1", "make the shapes agree")
def elementwise_shapes(x):
    a, b, dst = sbuf((64, 32)), sbuf((64, 16)), sbuf((64, 32))
    nisa.tensor_tensor(dst, a, b, op=nl.add)  # here


@mistake(ShapeMismatch, "data2 (32, 32)")
def elementwise_partitions(x):
    a, b, dst = sbuf((64, 32)), sbuf((32, 32)), sbuf((64, 32))
    nisa.tensor_tensor(dst, a, b, op=nl.add)  # here


@mistake(ShapeMismatch, "stationary (64, 64) has 64 partitions", "moving (32, 32) 32")
def contraction_partitions(x):
    stationary, moving, dst = sbuf((64, 64)), sbuf((32, 32)), psum()
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(ShapeMismatch, "dst has shape (64, 16)", "64 partitions of 32 elements")
def matmul_result_shape(x):
    stationary, moving, dst = sbuf((64, 64)), sbuf((64, 32)), psum((64, 16))
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(PartitionLimitExceeded, "stationary", "64", "32")
def more_rows_than_the_array_tile(x):
    stationary, moving, dst = sbuf((64, 32)), sbuf((64, 32)), psum((32, 32))
    nisa.nc_matmul(dst, stationary, moving, tile_position=(0, 0), tile_size=(32, 32))  # here


@mistake(FreeSizeExceeded, "stationary", "256", "128")
def stationary_too_wide(x):
    stationary, moving, dst = sbuf((64, 256)), sbuf((64, 32)), psum((64, 32))
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(ShapeMismatch, "operand0 has shape (64, 2)", "(64, 1)")
def vector_operand_of_two_columns(x):
    data, operand, dst = sbuf(), sbuf((64, 2)), sbuf()
    nisa.tensor_scalar(dst, data, op0=nl.multiply, operand0=operand)  # here


@mistake(ShapeMismatch, "2048", "64", "dst", "src")
def dma_counts(x):
    tile = sbuf((64, 1))
    nisa.dma_copy(tile, x)  # here


@mistake(ShapeMismatch, "(64, 2)")
def reduction_result(x):
    data, dst = sbuf(), sbuf((64, 2))
    nisa.tensor_reduce(dst, nl.add, data, axis=1)  # here


@mistake(InvalidOperand, "axis", "0", "partition")
def reduction_over_partitions(x):
    data, dst = sbuf(), sbuf((64, 1))
    nisa.tensor_reduce(dst, nl.add, data, axis=0)  # here


@mistake(InvalidOperand, "axis", "2")
def reduction_over_a_missing_axis(x):
    data, dst = sbuf(), sbuf((64, 1))
    nisa.tensor_reduce(dst, nl.add, data, axis=2)  # here


@mistake(InvalidOperand, "axis", "'x'")
def reduction_over_a_name(x):
    data, dst = sbuf(), sbuf((64, 1))
    nisa.tensor_reduce(dst, nl.add, data, axis="x")  # here


@mistake(InvalidOperand, "axis", "5")
def language_reduction_axis(x):
    nl.sum(nl.load(x), axis=5)  # here


@mistake(InvalidOperand, "axis", "1.5")
def language_reduction_axis_float(x):
    nl.max(nl.load(x), axis=1.5)  # here


@mistake(ShapeMismatch, "(64, 32)", "(64, 31)")
def language_broadcast(x):
    tile = nl.load(x)
    nl.add(tile, tile[:, 0:31])  # here


@mistake(ShapeMismatch, "(64, 32)", "(64, 30)")
def where_shapes(x):
    tile = nl.load(x)
    nl.where(tile, tile[:, 0:30], tile)  # here


@mistake(ShapeMismatch, "(64, 32)")
def assignment_shapes(x):
    tile = sbuf()
    tile[...] = nl.load(x)[:, 0:3]  # here


@mistake(InvalidOperand, "str", "a tensor or a number")
def assignment_of_a_string(x):
    tile = sbuf()
    tile[...] = "zero"  # here


# --- dtypes ---------------------------------------------------------------------------------------------------


@mistake(DtypeMismatch, "float32", "bfloat16", "tensor_copy")
def matmul_mixes_float32(x):
    stationary, moving, dst = sbuf((64, 64)), sbuf(dtype=nl.bfloat16), psum()
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(UnsupportedDtype, "dst", "bfloat16", "float32", "trn2")
def matmul_into_bfloat16(x):
    stationary, moving = sbuf((64, 64), nl.bfloat16), sbuf(dtype=nl.bfloat16)
    dst = psum(dtype=nl.bfloat16)
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(UnsupportedDtype, "stationary", "int32", "bfloat16")
def matmul_of_integers(x):
    stationary, moving, dst = sbuf((64, 64), nl.int32), sbuf(dtype=nl.int32), psum()
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(DtypeMismatch, "bit operations", "float32", "nl.uint32")
def bits_of_floats(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, tile, tile, op=nl.bitwise_and)  # here


@mistake(DtypeMismatch, "bfloat16", "float32")
def transpose_converts(x):
    data, dst = sbuf((64, 64)), psum((64, 64), nl.bfloat16)
    nisa.nc_transpose(dst, data)  # here


@mistake(UnsupportedDtype, "predicate", "float32", "uint8")
def predicate_of_floats(x):
    tile = sbuf()
    nisa.tensor_copy_predicated(tile, tile, tile)  # here


@mistake(UnsupportedDtype, "dst", "float32", "uint16, uint32")
def positions_as_floats(x):
    data, vals, dst = sbuf(), sbuf((64, 8)), sbuf((64, 8))
    nisa.nc_find_index8(dst, data, vals)  # here


@mistake(InvalidOperand, "dtype", "'float33'", "float32")
def dtype_by_a_wrong_name(x):
    nl.ndarray((64, 32), dtype="float33")  # here


@mistake(InvalidOperand, "dtype", "float64", "float32")
def dtype_the_chip_does_not_have(x):
    nl.ndarray((64, 32), dtype=np.float64)  # here


@mistake(InvalidOperand, "dtype", "None")
def dtype_none(x):
    nl.ndarray((64, 32), dtype=None)  # here


@mistake(InvalidOperand, "dtype", "3")
def dtype_a_number(x):
    nl.zeros((64, 32), 3)  # here


@mistake(InvalidOperand, "dtype", "'float33'")
def dtype_of_a_result(x):
    nl.exp(nl.load(x), dtype="float33")  # here


# --- shapes and memories of new tensors --------------------------------------------------------------------------


@mistake(InvalidOperand, "shape", "(64, 0)", "positive ints")
def shape_of_zero(x):
    nl.ndarray((64, 0), dtype=nl.float32)  # here


@mistake(InvalidOperand, "shape", "(64, -1)", "positive ints")
def shape_negative(x):
    nl.ndarray((64, -1), dtype=nl.float32)  # here


@mistake(InvalidOperand, "shape", "16.0", "// instead of /")
def shape_float(x):
    nl.ndarray((64, 32 / 2), dtype=nl.float32)  # here


@mistake(InvalidOperand, "shape", "int 64", "tuple of positive ints")
def shape_a_number(x):
    nl.ndarray(64, dtype=nl.float32)  # here


@mistake(InvalidOperand, "shape", "()")
def shape_empty(x):
    nl.ndarray((), dtype=nl.float32)  # here


@mistake(InvalidOperand, "shape", "(64,) in SBUF", "two dimensions", "(64, 1)")
def shape_of_one_dimension(x):
    nl.ndarray((64,), dtype=nl.float32)  # here


@mistake(InvalidOperand, "shape", "True")
def shape_bool(x):
    nl.ndarray((64, True), dtype=nl.float32)  # here


@mistake(InvalidOperand, "buffer", "'sbuf'", "nl.sbuf")
def buffer_as_string(x):
    nl.ndarray((64, 32), dtype=nl.float32, buffer="sbuf")  # here


@mistake(InvalidOperand, "buffer", "None", "nl.psum")
def buffer_none(x):
    nl.ndarray((64, 32), nl.float32, None)  # here


@mistake(InvalidOperand, "value", "'zero'", "a number")
def fill_with_a_string(x):
    nl.full((64, 32), "zero", nl.float32)  # here


@mistake(InvalidOperand, "name", "7", "a string")
def tensor_name(x):
    nl.ndarray((64, 32), dtype=nl.float32, name=7)  # here


# --- engines, operators, generations ------------------------------------------------------------------------------


@mistake(UnsupportedEngine, "tensor", "vector", "leave engine unset")
def engine_that_cannot(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, tile, tile, op=nl.add, engine=nisa.engine.tensor)  # here


@mistake(UnsupportedEngine, "'vector'", "vector")
def engine_as_string(x):
    tile = sbuf()
    nisa.tensor_copy(tile, sbuf(), engine="vector")  # here


@mistake(UnsupportedOnTarget, "trn2", "trn1", target="trn1")
def scalar_engine_copy_on_trn1(x):
    tile, src = sbuf(), sbuf()
    nisa.tensor_copy(tile, src, engine=nisa.engine.scalar)  # here


@mistake(UnsupportedOnTarget, "double_row", "trn2", "trn1", target="trn1")
def double_row_on_trn1(x):
    stationary, moving = sbuf((64, 2, 64), nl.float8_e4m3), sbuf((64, 2, 32), nl.float8_e4m3)
    dst = psum()
    nisa.nc_matmul(dst, stationary, moving, perf_mode=nisa.matmul_perf_mode.double_row)  # here


@mistake(UnsupportedDtype, "float8_e4m3fn", "trn2", target="trn2")
def dtype_of_another_generation(x):
    stationary, moving = sbuf((64, 64), nl.float8_e4m3fn), sbuf(dtype=nl.float8_e4m3fn)
    dst = psum()
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(UnknownOperator, "'exp'", "add", "nl.")
def operator_that_is_unary(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, tile, tile, op=nl.exp)  # here


@mistake(UnknownOperator, "'plus'", "add")
def operator_by_a_wrong_name(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, tile, tile, op="plus")  # here


@mistake(UnknownOperator, "None", "add")
def operator_none(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, tile, tile, op=None)  # here


@mistake(UnknownOperator, "activation", "'matmul'", "exp")
def activation_function(x):
    tile = sbuf()
    nisa.activation(tile, nl.matmul, tile)  # here


@mistake(UnknownOperator, "lambda", "add")
def operator_a_lambda(x):
    tile = sbuf()
    nisa.tensor_reduce(tile[:, 0:1], lambda a, b: a + b, tile, axis=1)  # here


# --- kinds of arguments ------------------------------------------------------------------------------------------


@mistake(InvalidOperand, "data2", "int 3", "a tensor")
def number_for_a_tensor(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, tile, 3, op=nl.add)  # here


@mistake(InvalidOperand, "src", "an array float32 (64, 32) (ndarray)", "a tensor", "argument of the kernel")
def array_for_a_tensor(x):
    tile = sbuf()
    nisa.dma_copy(tile, X)  # here


@mistake(InvalidOperand, "dst", "None", "a tensor")
def none_for_a_tensor(x):
    nisa.tensor_copy(None, sbuf())  # here


@mistake(InvalidOperand, "operand0", "'2'", "a number or a tensor")
def string_for_a_number(x):
    tile = sbuf()
    nisa.tensor_scalar(tile, tile, nl.add, "2")  # here


@mistake(InvalidOperand, "value", "a number")
def tensor_for_a_number(x):
    tile = sbuf()
    nisa.memset(tile, tile[:, 0:1])  # here


@mistake(InvalidOperand, "value", "complex", "a number")
def complex_number(x):
    nisa.memset(sbuf(), 1j)  # here


@mistake(InvalidOperand, "reverse0", "a tensor", "True or False")
def tensor_for_a_flag(x):
    tile = sbuf()
    nisa.tensor_scalar(tile, tile, nl.add, 1.0, reverse0=tile)  # here


@mistake(InvalidOperand, "keepdims", "'no'", "True or False")
def string_for_a_flag(x):
    tile = sbuf()
    nisa.tensor_reduce(tile[:, 0:1], nl.add, tile, axis=1, keepdims="no")  # here


@mistake(InvalidOperand, "axis", "an array")
def array_for_an_attribute(x):
    tile = sbuf()
    nisa.tensor_reduce(tile[:, 0:1], nl.add, tile, axis=np.array([1]))  # here


@mistake(InvalidOperand, "pattern", "dict {1: 32}")
def dict_for_an_attribute(x):
    nisa.iota(sbuf(dtype=nl.int32), {1: 32})  # here


@mistake(InvalidOperand, "name", "5", "a string")
def instruction_name(x):
    tile = sbuf()
    nisa.tensor_copy(tile, sbuf(), name=5)  # here


@mistake(InvalidCall, "tensor_copy", "source", "tensor_copy(dst, src, ")
def unknown_keyword(x):
    tile = sbuf()
    nisa.tensor_copy(dst=tile, source=tile)  # here


@mistake(InvalidCall, "tensor_tensor", "op", "tensor_tensor(dst, data1, data2, op")
def missing_argument(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, tile, tile)  # here


@mistake(InvalidCall, "memset", "memset(dst, value")
def too_many_arguments(x):
    nisa.memset(sbuf(), 0.0, nisa.engine.vector, "name", 5)  # here


@mistake(InvalidCall, "ndarray", "shapes", "ndarray(shape, dtype")
def unknown_keyword_of_the_language(x):
    nl.ndarray(shapes=(64, 32), dtype=nl.float32)  # here


@mistake(InvalidCall, "broadcast", "dimension", "broadcast(dim, size)")
def unknown_keyword_of_a_method(x):
    sbuf((64, 1)).broadcast(dimension=1, size=32)  # here


@mistake(InvalidOperand, "tile_position", "(16, 0)", "multiples", "(32, 32)")
def tile_position_misaligned(x):
    stationary, moving, dst = sbuf((32, 32)), sbuf((32, 32)), psum((32, 32))
    nisa.nc_matmul(dst, stationary, moving, tile_position=(16, 0), tile_size=(32, 32))  # here


@mistake(InvalidOperand, "tile_position", "(128, 0)", "128")
def tile_position_outside(x):
    stationary, moving, dst = sbuf((32, 32)), sbuf((32, 32)), psum((32, 32))
    nisa.nc_matmul(dst, stationary, moving, tile_position=(128, 0), tile_size=(32, 32))  # here


@mistake(InvalidOperand, "tile_size", "(48, 32)", "32, 64, 128")
def tile_size_impossible(x):
    stationary, moving, dst = sbuf((32, 32)), sbuf((32, 32)), psum((32, 32))
    nisa.nc_matmul(dst, stationary, moving, tile_position=(0, 0), tile_size=(48, 32))  # here


@mistake(InvalidOperand, "perf_mode", "'fast'", "double_row")
def perf_mode_unknown(x):
    stationary, moving, dst = sbuf((64, 64)), sbuf(), psum()
    nisa.nc_matmul(dst, stationary, moving, perf_mode="fast")  # here


@mistake(InvalidOperand, "pattern", "1 to 4")
def pattern_of_five_pairs(x):
    nisa.iota(sbuf((64, 32), nl.int32), [[1, 2]] * 5)  # here


@mistake(InvalidOperand, "pattern", "(1, 32)", "pairs")
def pattern_flat(x):
    nisa.iota(sbuf((64, 32), nl.int32), [1, 32])  # here


@mistake(ShapeMismatch, "pattern", "16", "32")
def pattern_of_another_size(x):
    nisa.iota(sbuf((64, 32), nl.int32), [[1, 16]])  # here


@mistake(InvalidOperand, "offset", "2147483648", "int32")
def offset_beyond_int32(x):
    nisa.iota(sbuf((64, 32), nl.int32), [[1, 32]], offset=1 << 31)  # here


@mistake(InvalidOperand, "priority", "7", "0 to 3", target="trn3")
def priority_out_of_range(x):
    nisa.dma_copy(sbuf(), x, priority=7)  # here


@mistake(InvalidOperand, "dge_mode", "'fast'")
def dge_mode_unknown(x):
    nisa.dma_copy(sbuf(), x, dge_mode="fast")  # here


@mistake(InvalidOperand, "oob_mode", "'ignore'")
def oob_mode_unknown(x):
    nisa.dma_copy(sbuf(), x, oob_mode="ignore")  # here


@mistake(InvalidOperand, "reduce_cmd", "'reset'", "reduce_cmd.")
def reduce_cmd_unknown(x):
    tile = sbuf()
    nisa.activation(tile, nl.exp, tile, reduce_op=nl.add, reduce_cmd="reset")  # here


@mistake(InvalidOperand, "src", "4", "8")
def too_few_to_search(x):
    nisa.max8(sbuf((64, 8)), sbuf((64, 4)))  # here


@mistake(InvalidOperand, "nl.exp", "float 1.0", "tile")
def number_for_a_tile(x):
    nl.exp(1.0)  # here


@mistake(InvalidOperand, "nl.exp", "HBM", "nl.load")
def hbm_for_a_tile(x):
    nl.exp(x)  # here


@mistake(InvalidOperand, "nl.add", "an array")
def array_for_a_tile(x):
    nl.add(nl.load(x), X)  # here


@mistake(InvalidOperand, "nl.load", "an array", "HBM")
def array_to_load(x):
    nl.load(X)  # here


@mistake(InvalidOperand, "nl.store", "dst", "SBUF", "HBM")
def store_into_sbuf(x):
    nl.store(sbuf(), nl.load(x))  # here


@mistake(InvalidOperand, "operand0", "1.5", "32-bit integer")
def fraction_for_bits(x):
    tile = sbuf(dtype=nl.uint32)
    nisa.tensor_scalar(tile, tile, nl.bitwise_and, 1.5)  # here


@mistake(InvalidOperand, "body_fun", "int 3", "a function")
def loop_body_that_is_no_function(x):
    nl.fori_loop(0, 4, 3)  # here


@mistake(InvalidOperand, "step", "0", "positive")
def loop_step(x):
    nl.fori_loop(0, 4, lambda i: None, step=0)  # here


@mistake(InvalidOperand, "lower", "float 2.0", "int")
def loop_bound(x):
    nl.fori_loop(2.0, 4, lambda i: None)  # here


@mistake(InvalidOperand, "nl.while_loop", "init", "None", "register")
def loop_condition(x):
    nl.while_loop(None, lambda i: None)  # here


@mistake(InvalidOperand, "src is NkiTileGrid", "fix: pass its .data")
def cell_of_a_grid_as_an_operand(x):
    nisa.dma_copy(sbuf(), nl.tiles(x, tile_shape=x.shape)[0, 0])  # here


@mistake.parametrize
def test_mistake(mistake, mode, monkeypatch) -> None:
    check(mistake, mode, monkeypatch)
