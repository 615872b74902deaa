"""Mistakes in indexing, reshaping and access patterns."""

from __future__ import annotations

import numpy as np
from errors_testing import Table, check, sbuf, stored

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    EmptySlice,
    IndexOutOfBounds,
    IndirectOutOfBounds,
    InvalidDimension,
    InvalidIndex,
    InvalidOperand,
    InvalidReshape,
    InvalidView,
    PartitionStrideMismatch,
    PatternOutOfBounds,
    ShapeMismatch,
    TooManyIndices,
)

mistake = Table()


@mistake(IndexOutOfBounds, "0:40", "dimension 1", "size 32")
def slice_past_the_end(x):
    x[:, 0:40]  # here


@mistake(IndexOutOfBounds, "32", "dimension 1", "(64, 32)")
def index_past_the_end(x):
    sbuf()[:, 32]  # here


@mistake(IndexOutOfBounds, "-33", "size 32")
def index_before_the_start(x):
    x[0, -33]  # here


@mistake(IndexOutOfBounds, "60", "size 64")
def ds_past_the_end(x):
    x[nl.ds(60, 8), :]  # here


@mistake(EmptySlice, "8:8", "size 32", "at least one")
def empty_slice(x):
    nisa.dma_copy(x, x[:, 8:8])  # here


@mistake(EmptySlice, "size 32")
def ds_of_nothing(x):
    nisa.dma_copy(x, x[:, nl.ds(8, 0)])  # here


@mistake(TooManyIndices, "3 indices", "2 dimensions", "(64, 32)")
def three_indices_of_two(x):
    x[0, 0, 0]  # here


@mistake(InvalidIndex, "2.0", "integers")
def float_index(x):
    x[:, 4 / 2]  # here


@mistake(InvalidIndex, "2.0", "// instead of /")
def float_slice_bound(x):
    x[:, 0:4 / 2]  # here


@mistake(InvalidIndex, "None", "expand_dim")
def new_axis(x):
    x[None]  # here


@mistake(InvalidIndex, "list", "nl.ds")
def list_index(x):
    x[[0, 1, 2]]  # here


@mistake(InvalidIndex, "ndarray", "nl.ds")
def array_index(x):
    x[np.arange(4)]  # here


@mistake(InvalidIndex, "str")
def string_index(x):
    x["rows"]  # here


@mistake(InvalidIndex, "bool")
def mask_index(x):
    x[True]  # here


@mistake(InvalidIndex, "two ellipses")
def two_ellipses(x):
    x[..., ...]  # here


@mistake(InvalidIndex, "step 0")
def slice_step_zero(x):
    x[::0]  # here


@mistake(InvalidReshape, "(64, 32)", "(64, 33)", "2048", "2112")
def reshape_to_another_size(x):
    sbuf().reshape((64, 33))  # here


@mistake(InvalidReshape, "partition dimension", "64", "32", "nc_transpose")
def reshape_across_partitions(x):
    sbuf().reshape((32, 64))  # here


@mistake(InvalidReshape, "(64, 32)", "-1")
def reshape_with_two_unknowns(x):
    x.reshape((-1, -1))  # here


@mistake(InvalidReshape, "strides")
def reshape_of_a_column_slice(x):
    x[:, 0:16].reshape((64 * 16,))  # here


@mistake(InvalidReshape, "'rows'")
def reshape_to_names(x):
    x.reshape(("rows", 4))  # here


@mistake(InvalidReshape, "16.0")
def reshape_to_a_float(x):
    x.reshape((64, 2, 32 / 2))  # here


@mistake(InvalidView, "permute", "(0, 0)")
def permute_twice_the_same(x):
    x.permute((0, 0))  # here


@mistake(InvalidView, "permute", "partition dimension", "nc_transpose")
def permute_partitions(x):
    sbuf().permute((1, 0))  # here


@mistake(InvalidView, "permute", "3")
def permute_a_number(x):
    x.permute(3)  # here


@mistake(InvalidView, "broadcast", "size 32, not 1")
def broadcast_of_many(x):
    sbuf().broadcast(1, 64)  # here


@mistake(InvalidView, "broadcast", "partition dimension", "matmul")
def broadcast_partitions(x):
    sbuf((1, 32)).broadcast(0, 64)  # here


@mistake(InvalidView, "broadcast", "-2")
def broadcast_to_a_negative_size(x):
    sbuf((64, 1)).broadcast(1, -2)  # here


@mistake(InvalidDimension, "broadcast", "dimension 5", "(64, 1)", "0 to 1")
def broadcast_of_a_missing_dimension(x):
    sbuf((64, 1)).broadcast(5, 2)  # here


@mistake(InvalidView, "broadcast", "'x'", "an int")
def broadcast_of_a_named_dimension(x):
    sbuf((64, 1)).broadcast("x", 2)  # here


@mistake(InvalidView, "squeeze_dim", "size 32, not 1")
def squeeze_of_many(x):
    sbuf().squeeze_dim(1)  # here


@mistake(InvalidReshape, "not contiguous")
def flatten_of_a_slice(x):
    x.reshape((64, 4, 8))[:, :, 0:2].flatten_dims(1, 2)  # here


@mistake(InvalidReshape, "(32,)", "(5, 6)")
def split_of_a_dimension(x):
    x.reshape_dim(1, (5, 6))  # here


@mistake(IndexOutOfBounds, "0:99", "size 32")
def slice_method(x):
    x.slice(1, 0, 99)  # here


@mistake(InvalidView, "slice", "step 0")
def slice_method_step(x):
    x.slice(1, 0, 9, 0)  # here


@mistake(InvalidView, "slice", "'a'", "an int")
def slice_method_by_name(x):
    x.slice(1, "a", 9)  # here


@mistake(IndexOutOfBounds, "64", "size 64")
def select_past_the_end(x):
    x.select(0, 64)  # here


@mistake(InvalidView, "select", "partition dimension")
def select_a_partition_at_run_time(x):
    tile = sbuf()
    tile.select(0, sbuf((1, 1), nl.int32))  # here


@mistake(InvalidView, "float32 in sbuf", "int32")
def runtime_index_of_floats(x):
    x.select(0, sbuf((1, 1)))  # here


@mistake(InvalidView, "vector_select", "sbuf")
def vector_select_on_chip(x):
    sbuf().vector_select(0, sbuf((64, 1), nl.int32))  # here


@mistake(InvalidView, "rearrange", "3 source names for 2 dimensions")
def rearrange_too_many_names(x):
    x.rearrange(("a", "b", "c"), ("c", "b", "a"))  # here


@mistake(InvalidView, "rearrange", "permutation")
def rearrange_other_names(x):
    x.rearrange(("a", "b"), ("a", "c"))  # here


@mistake(InvalidView, "rearrange", "7")
def rearrange_sizes(x):
    x.rearrange(("a", "b"), ("b", "a"), {"a": 7})  # here


@mistake(InvalidReshape, "(32,)")
def rearrange_indivisible(x):
    x.rearrange(("a", ("b", "c")), ("a", "c", "b"), {"b": 5})  # here


@mistake(InvalidOperand, "dtype", "'float33'")
def view_as_a_wrong_dtype(x):
    sbuf().view("float33")  # here


@mistake(InvalidView, "view", "float32")
def view_of_odd_bytes(x):
    sbuf((64, 3), nl.int8).view(nl.float32)  # here


@mistake(InvalidView, "view", "stride 2")
def view_of_a_strided_slice(x):
    sbuf()[:, ::2].view(nl.int8)  # here


@mistake(PartitionStrideMismatch, "31", "32", "[32, n]")
def pattern_partition_stride(x):
    nisa.dma_copy(x, sbuf().ap([[31, 64], [1, 16]]))  # here


@mistake(PatternOutOfBounds, "has 2048", "element 2063", "reduce")
def pattern_past_the_end(x):
    nisa.dma_copy(x, x.ap([[32, 64], [1, 48]]))  # here


@mistake(PatternOutOfBounds, "offset 40", "x")
def pattern_offset_past_the_end(x):
    nisa.dma_copy(x, x.ap([[32, 64], [1, 32]], offset=40))  # here


@mistake(PatternOutOfBounds, "-1")
def pattern_before_the_start(x):
    nisa.dma_copy(x, x.ap([[32, 64], [-1, 2]]))  # here


@mistake(PatternOutOfBounds, "element 39", "32 in each partition")
def pattern_leaves_its_partition(x):
    nisa.dma_copy(x, sbuf().ap([[32, 32], [1, 40]]))  # here


@mistake(PatternOutOfBounds, "partition 64", "64 partitions")
def pattern_of_too_many_partitions(x):
    nisa.dma_copy(x, sbuf()[1:].ap([[32, 64], [1, 32]]))  # here


@mistake(InvalidView, ".ap()", "[[32, 64], [1, 0]]", "at least 1")
def pattern_of_nothing(x):
    nisa.dma_copy(x, x.ap([[32, 64], [1, 0]]))  # here


@mistake(InvalidView, "begins at byte 1", "have 4", "the view was made at")
def pattern_within_an_element(x):
    view = sbuf((64, 32), nl.uint8)[:, 1:].ap([[8, 64], [1, 2]], dtype=nl.int32)
    nisa.dma_copy(x[:, 0:2], view[:, ::-1])  # here


@mistake(InvalidView, "a partition of", "7 bytes", "have 4")
def pattern_of_elements_across_partitions(x):
    nisa.dma_copy(x[:4, 0:1], sbuf((4, 7), nl.uint8).ap([[1, 4], [1, 1]], dtype=nl.int32))  # here


@mistake(PatternOutOfBounds, "partition -1", "64 partitions")
def pattern_before_the_first_partition(x):
    nisa.dma_copy(x[0:2, 0:1], sbuf().ap([[32, 2], [1, 1]], offset=-1))  # here


@mistake(EmptySlice, "64:", "the view was made at")
def slice_of_nothing_used_later(x):
    rest = x[64:]
    tile = sbuf()
    nisa.dma_copy(tile[0:1], rest)  # here


@mistake(IndexOutOfBounds, "nl.ds of size 100", "size 64")
def ds_of_more_than_there_is(x):
    x[nl.ds(nisa.register_alloc(0), 100)]  # here


@mistake(IndexOutOfBounds, "nl.ds of size -3")
def ds_of_negative_size(x):
    x[nl.ds(8, -3)]  # here


@mistake(InvalidView, ".ap()", "[32, 64]", "[stride, count]")
def pattern_flat(x):
    x.ap([32, 64])  # here


@mistake(InvalidView, ".ap()", "[[1, 2, 3]]", "[stride, count]")
def pattern_of_triples(x):
    x.ap([[1, 2, 3]])  # here


@mistake(InvalidView, ".ap()", "1.5", "[stride, count]")
def pattern_of_floats(x):
    x.ap([[32, 64], [1.5, 2]])  # here


@mistake(InvalidView, ".ap()", "'here'", "an int")
def pattern_offset_of_text(x):
    x.ap([[32, 64], [1, 32]], offset="here")  # here


@mistake(InvalidView, ".ap()", "both scalar_offset and vector_offset")
def pattern_with_two_offsets(x):
    index = sbuf((64, 1), nl.int32)
    x.ap([[32, 64], [1, 32]], scalar_offset=index, vector_offset=index)  # here


@mistake(InvalidView, "scalar_offset", "int", "int32")
def pattern_with_a_number_as_runtime_offset(x):
    x.ap([[32, 64], [1, 32]], scalar_offset=3)  # here


@mistake(InvalidDimension, ".ap(indirect_dim=)", "4", "0 to 1")
def pattern_indirect_dimension(x):
    index = sbuf((64, 1), nl.int32)
    x.ap([[32, 64], [1, 32]], vector_offset=index, indirect_dim=4)  # here


@mistake(IndirectOutOfBounds, "99", "[0, 64)", "oob_mode")
def gather_past_the_end(x):
    index, tile = sbuf((16, 1), nl.int32, value=99), sbuf((16, 32))
    nisa.dma_copy(tile, x.vector_select(0, index))  # here
    return stored(tile)


@mistake(IndirectOutOfBounds, "-1", "[0, 32)")
def select_before_the_start(x):
    index, tile = sbuf((1, 1), nl.int32, value=-1), sbuf((64, 1))
    nisa.dma_copy(tile, x.select(1, index))  # here
    return stored(tile)


@mistake(InvalidDimension, "expand_dim", "7", "0 to 2")
def expand_dims_axis(x):
    nl.expand_dims(nl.load(x), 7)  # here


@mistake(ShapeMismatch, "(64, 32)", "(64, 31)")
def broadcast_to_a_smaller_shape(x):
    nl.broadcast_to(nl.load(x), (64, 31))  # here


@mistake.parametrize
def test_mistake(mistake, mode, monkeypatch) -> None:
    check(mistake, mode, monkeypatch)


