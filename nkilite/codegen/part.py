"""A member of a group on a block: some of its rows, and all or some of its columns."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

from nkilite.codegen import column_loop
from nkilite.codegen.ahead import Ahead, fetch_lines
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel, Sweep
from nkilite.codegen.matrix import Matrix
from nkilite.ir import nest
from nkilite.schedule.tree import Op, Slice, Use


class Block(NamedTuple):
    """What is worked on at once.

    Attributes:
        rows: how many.
        number: which block of so many rows; None if there is only one.
        column, columns: the first column and how many; None and 0 for all.
    """

    rows: int
    number: Value | None = None
    column: Value | None = None
    columns: int = 0


class Home(NamedTuple):
    """Where an operand is.

    Attributes:
        pointer: of its first block.
        pitch: bytes from row to row.
        rows, columns: whether other blocks have other rows, and other columns, of it.
    """

    pointer: Value
    pitch: int
    rows: bool = True
    columns: bool = True

    @classmethod
    def of(cls, kernel: MicroKernel, name: str) -> Home:
        """An operand where its buffer is; ask outside of loops."""
        return cls(kernel.pointer(name), kernel.operands[name].strides[0])

    @classmethod
    def strip(cls, strip: Matrix, rows: bool = False) -> Home:
        """Columns in memory of their own, of this block of rows or of all."""
        return cls(strip.pointer, strip.row_stride, rows, False)


class Part:
    """A member, the uses of its operands, and where they are; those without a home are in column_loop."""

    def __init__(self, kernel: MicroKernel, op: Op, homes: Mapping[str, Home]) -> None:
        """Operands of fewer columns than others are the same for all columns, which blocks may divide."""
        self.kernel, self._slice = kernel, op.slice
        self._uses = dict(zip((o.name for o in kernel.call.operands), op.uses, strict=True))
        self._homes = dict(homes)
        columns = max(o.columns for o in kernel.operands.values())
        self.wide = {name for name, o in kernel.operands.items() if o.columns == columns}

    def write(self, block: Block, homes: Mapping[str, Home] | None = None) -> None:
        """The member's code for a block.

        Args:
            homes: of operands that have others than usual.
        """
        found = self._homes | dict(homes or {})
        pointers = self._pointers(block, found)
        operands = {name: self._operand(name, block, found) for name in self._uses}
        self.kernel.write_part(operands, pointers, place=(self._row(block), block.column))

    def in_columns(
        self, block: Block, columns: int, homes: Mapping[str, Home] | None = None
    ) -> column_loop.Member:
        """The member on a block as a part of a loop over columns."""
        found = self._homes | dict(homes or {})
        pointers = self._pointers(block, found)
        operands = {name: self._operand(name, block, found) for name in self._uses}
        if self._slice is not None:
            for name in sorted(self.wide):  # in any process the same: code is found by its text
                operands[name], offset = _cut(operands[name], self._slice)
                if name in pointers:
                    pointers[name] = self.kernel.e.offset(pointers[name], offset)
        accesses = []
        for position, argument in enumerate(self.kernel.call.operands):
            name, number = argument.name, self._uses[argument.name].value
            accesses.append(column_loop.Access(
                position if number is None else number, operands[name], pointers.get(name), argument.reads,
                argument.writes, name in self.kernel.call.access.sums, name in found and not found[name].rows,
            ))
        placed = self.kernel.call.access.placed
        return column_loop.Member(
            accesses, functools.partial(self._compute, operands, columns, block), placed
        )

    def _row(self, block: Block) -> Value | None:
        """The first row of a block, of those of the instruction."""
        return None if block.number is None else self.kernel.e.mul(block.number, block.rows)

    def prefetch(self, row: Value, column: Value, columns: int) -> None:
        """Fetch what the member will touch of some columns of a row."""
        e = self.kernel.e
        writes = {o.name for o in self.kernel.call.operands if o.writes}
        for name in sorted(self.wide & self._homes.keys()):
            operand, home = self.kernel.operands[name], self._homes[name]
            if operand.panels is None and home.columns:
                size = operand.dtype.itemsize
                at = e.step(e.step(home.pointer, row, home.pitch), column, size)
                fetch_lines(e, at, 0, columns * size, write=name in writes)

    def _pointers(self, block: Block, homes: Mapping[str, Home]) -> dict[str, Value]:
        e = self.kernel.e
        pointers = {}
        for name, home in homes.items():
            at = home.pointer
            if block.column is not None and home.columns and name in self.wide:
                at = e.step(at, block.column, self.kernel.operands[name].dtype.itemsize)
            if block.number is not None and home.rows:
                at = e.step(at, block.number, block.rows * home.pitch)
            pointers[name] = at
        return pointers

    def _operand(self, name: str, block: Block, homes: Mapping[str, Home]) -> CpuOperand:
        operand, use = self.kernel.operands[name], self._uses[name]
        pitch = homes[name].pitch if name in homes else operand.strides[0]
        shape, strides = operand.free
        if block.columns:
            shape, strides = (block.columns if name in self.wide else 1,), (operand.dtype.itemsize,)
        return operand._replace(
            shape=(block.rows, *shape), strides=(pitch, *strides), panels=None, streams=use.nontemporal,
            ahead=_ahead(use, block.rows * pitch), unread=use.unread,
        )

    def _compute(
        self, operands: Mapping[str, CpuOperand], columns: int, block: Block, variables: Mapping[str, Value],
        lanes: int, sweep: Sweep,
    ) -> None:
        """The member's code for a few of its columns, which variables hold."""
        few = {
            name: o._replace(
                shape=(1, lanes if o.columns == columns else 1), strides=(o.strides[0], o.dtype.itemsize),
                streams=False, ahead=None,
            )
            for name, o in operands.items()
        }
        e, first = self.kernel.e, self._row(block)
        row, column = sweep.place
        row = row if first is None else e.add(first, row)
        column = column if block.column is None else e.add(block.column, column)
        self.kernel.write_part(few, variables, sweep=sweep, place=(row, column))


def _cut(operand: CpuOperand, slice: Slice) -> tuple[CpuOperand, int]:
    """Some columns of an operand, and how far from its first element they begin."""
    found = nest.take(operand.free, *slice)
    assert found is not None
    offset, (shape, strides) = found
    return operand._replace(shape=(operand.shape[0], *shape), strides=(operand.strides[0], *strides)), offset


def _ahead(use: Use, distance: int) -> Ahead | None:
    """What is fetched of the next block, which begins at a distance."""
    what = use.prefetch
    return None if what is None else Ahead(distance + what.byte, what.first, what.parts)
