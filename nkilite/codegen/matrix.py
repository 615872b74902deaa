"""Operands as matrices of partitions by free elements; copies in scratch of those without a common stride."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

from nkilite.codegen import elementwise
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.dtypes import DType
from nkilite.host.cpu import Products
from nkilite.ir import nest
from nkilite.ir.types import contiguous_strides
from nkilite.schedule.panels import PAIR, WIDTH, Panels, means


class Matrix(NamedTuple):
    """Rows and columns in memory; strides are bytes."""

    pointer: Value
    dtype: DType
    rows: int
    row_stride: int
    columns: int
    column_stride: int

    @property
    def transposed(self) -> Matrix:
        return self._replace(
            rows=self.columns, row_stride=self.column_stride, columns=self.rows, column_stride=self.row_stride
        )

    @property
    def dense(self) -> bool:
        """Whether the elements of a row are neighbours in memory."""
        return self.column_stride == self.dtype.itemsize


class Packed(NamedTuple):
    """Rows and columns in panels; the pointer is that of a panel's first column."""

    pointer: Value
    panels: Panels
    rows: int
    columns: int

    @property
    def lines(self) -> int:
        """Lines of a panel whose groups of partitions have one each."""
        return self.rows // self.panels.depth

    @property
    def pairs(self) -> bool:
        """Whether its lines are of pairs of bfloat16."""
        return self.panels.depth == PAIR

    def of(self, e: Emitter, column: Value) -> Value:
        """Address of the panel that begins with a column."""
        return e.step(self.pointer, column, self.panels.panel // WIDTH)


def packed(kernel: MicroKernel, name: str) -> Packed | None:
    """An operand that lies in panels."""
    operand = kernel.operands[name]
    if operand.panels is None:
        return None
    return Packed(kernel.pointer(name), operand.panels, operand.shape[0], operand.columns)


def in_panels(kernel: MicroKernel, name: str) -> Packed:
    """An operand that is known to lie in panels."""
    found = packed(kernel, name)
    assert found is not None
    return found


def products(kernel: MicroKernel, *names: str) -> Products:
    """How operands are multiplied: their dtypes and the host alone say it, so that bits depend on nothing else."""
    return means((kernel.operands[name].dtype for name in names), kernel.host.products)


def direct(kernel: MicroKernel, name: str) -> Matrix | None:
    """The operand as it lies in memory, or None when its free dimensions have no common stride."""
    operand = kernel.operands[name]
    return _matrix(operand, kernel.pointer(name))


def source(kernel: MicroKernel, name: str) -> Matrix:
    """An operand that is read: as it lies in memory, or a dense copy of it."""
    return _source(kernel, kernel.operands[name], kernel.pointer(name))


def dense_source(kernel: MicroKernel, name: str) -> Matrix:
    """An operand that is read, with dense rows."""
    found = direct(kernel, name)
    if found is not None and found.dense:
        return found
    return _copy(kernel, kernel.operands[name], kernel.pointer(name))


def paired_source(kernel: MicroKernel, name: str) -> tuple[Matrix, ...]:
    """The matrices that the first free dimension of an operand counts through (double-row operands: two)."""
    operand, pointer = kernel.operands[name], kernel.pointer(name)
    free = operand.shape[2:] or (1,)
    strides = operand.strides[2:] or (operand.dtype.itemsize,)
    part = operand._replace(shape=(operand.shape[0], *free), strides=(operand.strides[0], *strides))
    starts = [kernel.e.offset(pointer, i * operand.strides[1]) for i in range(operand.shape[1])]
    return tuple(_source(kernel, part, start) for start in starts)


def target(kernel: MicroKernel, name: str, accumulate: bool) -> tuple[Matrix, bool]:
    """Where to write an operand, or to add to it: in memory, or in a dense copy (True) that is to be `spread`."""
    found = direct(kernel, name)
    if found is not None:
        return found, False
    operand = kernel.operands[name]
    if accumulate:
        return _copy(kernel, operand, kernel.pointer(name)), True
    return dense_scratch(kernel, operand.dtype, operand.shape[0], operand.columns), True


def dense_scratch(kernel: MicroKernel, dtype: DType, rows: int, columns: int) -> Matrix:
    """Uninitialized dense memory; ask outside of loops."""
    size = dtype.itemsize
    return Matrix(kernel.e.scratch(rows * columns * size), dtype, rows, columns * size, columns, size)


def spread(kernel: MicroKernel, staged: Matrix, name: str, accumulate: bool = False) -> None:
    """Copy a dense matrix to an operand of any strides; through float32 to convert or to add."""
    e = kernel.e
    target = kernel.operands[name]
    shape, strides = (staged.rows, staged.columns), (staged.row_stride, staged.column_stride)
    dense = target._replace(dtype=staged.dtype, shape=shape, strides=strides)
    compute = "bits" if staged.dtype == target.dtype and not accumulate else "f32"

    def element(at: list[Value], strides: Sequence[int], lanes: int) -> None:
        value = elementwise.load(e, staged.dtype, at[1], lanes, strides[1], compute)
        if accumulate:
            value = e.add(elementwise.load(e, target.dtype, at[0], lanes, strides[0], compute), value)
        elementwise.store(e, target.dtype, value, at[0], strides[0], compute)

    elementwise.visit(kernel, [target, dense], [kernel.pointer(name), staged.pointer], element)


def in_pieces(
    kernel: MicroKernel, name: str, columns: int, width: int, alone: bool, piece: Callable[[Value, int], None]
) -> None:
    """Write the columns of an operand some at a time, shared among threads unless `alone`.

    Args:
        piece: called with the first column and the number of columns, `width` but for the last piece.
    """
    e = kernel.e
    whole, pieces = columns // width, -(-columns // width)
    share = None if alone or pieces == 1 else kernel.share(pieces, of=(name,), columns=width)
    start, end = (share[0], e.minimum(share[1], whole)) if share else (0, whole)
    with e.loop(end, start=start) as loop:
        piece(e.mul(loop.index, width), width)
    if whole < pieces:
        with e.when(e.compare("eq", share[1], pieces)) if share else nullcontext():
            piece(e.i64(whole * width), columns - whole * width)


def _matrix(operand: CpuOperand, pointer: Value) -> Matrix | None:
    free = [nest.Dim(n, (s,)) for n, s in zip(*operand.free, strict=True)]
    merged = nest.merge(free)
    if len(merged) > 1:
        return None
    columns, stride = (merged[0].count, merged[0].strides[0]) if merged else (1, operand.dtype.itemsize)
    return Matrix(pointer, operand.dtype, operand.shape[0], operand.strides[0], columns, stride)


def _source(kernel: MicroKernel, operand: CpuOperand, pointer: Value) -> Matrix:
    return _matrix(operand, pointer) or _copy(kernel, operand, pointer)


def _copy(kernel: MicroKernel, operand: CpuOperand, pointer: Value) -> Matrix:
    copy = dense_scratch(kernel, operand.dtype, operand.shape[0], operand.columns)
    dense = tuple(s * operand.dtype.itemsize for s in contiguous_strides(operand.shape))
    elementwise.copy(kernel, operand._replace(strides=dense), operand, [copy.pointer, pointer])
    return copy
