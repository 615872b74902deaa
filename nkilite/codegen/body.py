"""The body of a loop of a group: operations, and loops over columns in registers, on a block of rows and columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nkilite.codegen import column_loop, matrix, pack
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix
from nkilite.codegen.part import Block, Home, Part
from nkilite.ir.program import Operand
from nkilite.schedule.panels import WIDTH
from nkilite.schedule.tree import Loop, Node, Op, Scratch, Source, Strip, Use, operations


class Slot(NamedTuple):
    """Scratch of a group: the rows of a block."""

    pointer: Value
    pitch: int


class Memory(NamedTuple):
    """What a group has of its own.

    Attributes:
        sums: a few columns of what matmuls add up; None where that is where its buffer is.
    """

    slots: Sequence[Slot] = ()
    sums: Matrix | None = None


class Body:
    """Nodes of a tree, ready to be written on one block after the other; of what goes to packed tiles, rows are made
    first."""

    def __init__(self, members: Sequence[MicroKernel], nodes: Sequence[Node], memory: Memory) -> None:
        self.e, self._members, self._memory = members[0].e, members, memory
        self._nodes = [node for node in nodes if not (isinstance(node, Op) and node.elided)]
        self._parts = {op: self._part(op) for op in operations(nodes) if not op.elided}
        self._late = next((n for n in self._nodes if isinstance(n, Loop) and n.beside is not None), None)
        for op in self._parts:
            if op not in self._nodes or (self._late is not None and op.member == self._late.beside):
                members[op.member].load_immediates()  # outside of its loop over columns

    @property
    def sums(self) -> Matrix | None:
        """The strip of the sums that the body takes, if they are in no memory of their own."""
        return self._memory.sums

    @property
    def names(self) -> tuple[str, ...]:
        """The operands that are divided along the columns."""
        return tuple(sorted(set().union(*(part.wide for part in self._parts.values()))))

    def prefetch(self, row: Value, column: Value, columns: int) -> None:
        """Fetch what it will touch of some columns of a row."""
        for part in self._parts.values():
            part.prefetch(row, column, columns)

    def write(self, block: Block, first: Value | None = None) -> None:
        """The code for a block, of those of a call from `first` on."""
        for node in self._nodes:
            if isinstance(node, Loop):
                if node is not self._late:
                    self._run(block, list(operations([node])), node)
            elif isinstance(node, Op) and self._late is not None and node.member == self._late.beside:
                self._pipelined(node, self._late, block, first)
            elif isinstance(node, Op):
                self._run(block, [node])

    def strip(self, rows: int, column: Value, columns: int, share: tuple[Value, Value] | None = None) -> None:
        """The code for some columns of so many rows; of a share of their panels, first and end, if not of all."""
        if share is None:
            self.write(Block(rows, None, column, columns))
            return
        with self.e.loop(share[1], start=share[0]) as loop:
            self.write(Block(WIDTH, loop.index, column, columns))

    def drain(self, rows: int, first: Value, end: Value) -> None:
        """What the last block, of those between two, still has to do after it."""
        if self._late is not None:
            with self.e.when(self.e.compare("sgt", end, first)):
                last = Block(rows, self.e.sub(end, 1))
                self._run(last, list(operations([self._late])), self._late)

    def _pipelined(self, op: Op, late: Loop, block: Block, first: Value | None) -> None:
        """An operation, and on the way the loop that works on the block before."""
        e = self.e
        assert first is not None
        assert block.number is not None
        follows = e.compare("sgt", block.number, first)
        before = block._replace(number=e.select(follows, e.sub(block.number, 1), block.number))
        here, there = (
            self._inside(where, ops, late.extent, {}) for where, ops in ((block, [op]), (before, operations([late])))
        )
        column_loop.write_beside(e, here, there, follows, block.rows, late.extent)

    def _run(self, block: Block, ops: Sequence[Op], loop: Loop | None = None) -> None:
        """One operation, or those of a loop over columns."""
        homes, packed = self._packed(block, ops)
        if loop is None:
            (op,) = ops
            self._parts[op].write(block, homes[op])
        else:
            columns = block.columns or loop.extent
            column_loop.write(self.e, self._inside(block, ops, columns, homes), block.rows, columns)
        for kernel, name, rows in packed:
            panels = kernel.operands[name].panels
            assert panels is not None
            assert block.column is not None
            pack.strip(self.e, panels, self.e.step(kernel.pointer(name), block.column, panels.panel // WIDTH), rows)

    def _inside(
        self, block: Block, ops: Iterable[Op], columns: int, homes: Mapping[Op, Mapping[str, Home]]
    ) -> list[column_loop.Member]:
        return [self._parts[op].in_columns(block, columns, homes.get(op)) for op in ops if not op.elided]

    def _packed(
        self, block: Block, ops: Sequence[Op]
    ) -> tuple[dict[Op, dict[str, Home]], list[tuple[MicroKernel, str, Matrix]]]:
        """Rows for what operations write to packed tiles."""
        homes: dict[Op, dict[str, Home]] = {op: {} for op in ops}
        found: list[tuple[MicroKernel, str, Matrix]] = []
        for op in ops:
            kernel = self._members[op.member]
            for name, operand in kernel.operands.items():
                if operand.panels is not None and not op.elided:
                    width = block.columns if name in self._parts[op].wide else 1
                    rows = matrix.dense_scratch(kernel, operand.dtype, block.rows, width)
                    homes[op][name] = Home.strip(rows)
                    found.append((kernel, name, rows))
        return homes, found

    def _part(self, op: Op) -> Part:
        kernel = self._members[op.member]
        uses = zip(kernel.call.operands, op.uses, strict=True)
        homes = {operand.name: home for operand, use in uses if (home := self._home(kernel, operand, use)) is not None}
        return Part(kernel, op, homes)

    def _home(self, kernel: MicroKernel, operand: Operand, use: Use) -> Home | None:
        """Where an operand is; None for nowhere, and for registers."""
        place = use.place
        if isinstance(place, Scratch):
            pointer, pitch = self._memory.slots[place.slot]
            return Home(self.e.offset(pointer, place.byte), pitch, rows=False)
        if isinstance(place, Source):
            load = self._members[place.member]
            assert load.call.access.move is not None
            home = Home.of(load, load.call.access.move[1])
            return home._replace(pointer=self.e.offset(home.pointer, place.byte))
        if isinstance(place, Strip):
            assert self.sums is not None
            return Home.strip(self.sums, rows=True)
        return Home.of(kernel, operand.name) if place is None else None
