"""Instructions on some columns of all rows at a time: what takes the sums of matmuls, and what writes a packed tile."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import column_loop, matrix, pack
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.matrix import Matrix
from nkilite.codegen.part import Block, Home, Part
from nkilite.schedule.panels import WIDTH
from nkilite.schedule.tree import Loop, Node, Op, Strip, Use, operations

_STRIP = 4 * WIDTH  # columns


class Epilogue:
    """The members of a group after its matmuls; of what they write, packed tiles are made in rows first."""

    def __init__(self, members: Sequence[MicroKernel], nodes: Sequence[Node], rows: int, columns: int) -> None:
        """`rows` and `columns` are those of the sums."""
        self._rows = rows
        self._nodes = [[node] if isinstance(node, Op) else list(operations([node])) for node in nodes]
        self._loops = [isinstance(node, Loop) for node in nodes]
        self._strips: dict[int, set[str]] = {}  # operands that are the sums
        self._parts: dict[int, Part] = {}
        for op in operations(nodes):
            kernel = members[op.member]
            uses = dict(zip((o.name for o in kernel.call.operands), op.uses, strict=True))
            homes = {name: Home.of(kernel, name) for name, use in uses.items() if use.place is None}
            self._strips[op.member] = {name for name, use in uses.items() if use.place == Strip()}
            self._parts[op.member] = Part(kernel, op, homes, columns)
        for op in (op for ops, loop in zip(self._nodes, self._loops, strict=True) if loop for op in ops):
            members[op.member].load_immediates()

    @property
    def names(self) -> set[str]:
        """The operands that have a column for each of the sums."""
        return set().union(*(part.wide for part in self._parts.values()))

    def touch(self, row: Value, column: Value, width: int) -> None:
        """Fetch what they will touch of a row in `width` columns."""
        for part in self._parts.values():
            part.prefetch(row, column, width)

    def write(
        self, column: Value, width: int, sums: Matrix | None, part: tuple[Value, Value] | None = None
    ) -> None:
        """Their code for `width` columns.

        Args:
            sums: the strip, where it is in no memory of its own.
            part: first and end of the panels of rows to do, if not all rows.
        """
        if part is None:
            self._block(Block(self._rows, None, column, width), sums)
            return
        first, end = part
        with self._emitter.loop(end, start=first) as loop:
            self._block(Block(WIDTH, loop.index, column, width), sums)

    @property
    def _emitter(self) -> Emitter:
        return next(iter(self._parts.values())).kernel.e

    def _block(self, block: Block, sums: Matrix | None) -> None:
        for ops, loop in zip(self._nodes, self._loops, strict=True):
            homes: dict[int, dict[str, Home]] = {}
            packed: list[tuple[Part, str, Matrix]] = []
            for op in ops:
                part = self._parts[op.member]
                strips = dict.fromkeys(self._strips[op.member], sums)
                homes[op.member] = {name: Home.strip(strip, rows=True) for name, strip in strips.items() if strip}
                for name, o in part.kernel.operands.items():
                    if o.panels is not None:
                        width = block.columns if name in part.wide else 1
                        strip = matrix.dense_scratch(part.kernel, o.dtype, block.rows, width)
                        homes[op.member][name] = Home.strip(strip)
                        packed.append((part, name, strip))
            if loop:
                parts = [self._parts[op.member].in_columns(block, block.columns, homes[op.member]) for op in ops]
                column_loop.write(self._emitter, parts, block.rows, block.columns)
            else:
                for op in ops:
                    self._parts[op.member].write(block, homes[op.member])
            for part, name, strip in packed:
                _pack(part.kernel, name, block, strip)


def _pack(kernel: MicroKernel, name: str, block: Block, strip: Matrix) -> None:
    """Columns of a packed tile from a strip of rows."""
    panels = kernel.operands[name].panels
    assert panels is not None
    assert block.column is not None
    pack.strip(kernel.e, panels, kernel.e.step(kernel.pointer(name), block.column, panels.panel // WIDTH), strip)


def packs(kernel: MicroKernel) -> bool:
    """Whether an instruction writes to panels, of which its lower rule knows nothing."""
    return any(o.writes and kernel.operands[o.name].panels for o in kernel.call.operands)


def write_packed(kernel: MicroKernel) -> None:
    """The micro-kernel of such an instruction; calls side by side share its strips."""
    access = kernel.call.access
    if access.move is not None and access.straight:
        pack.pack(kernel, *access.move)
        return
    e = kernel.e
    (target,) = (o for o in kernel.operands.values() if o.panels)
    own = Op(0, (Use(),) * len(kernel.call.operands))
    whole, rest = divmod(target.columns, _STRIP)
    strips = Epilogue([kernel], [own], target.shape[0], target.columns)
    pieces = whole + bool(rest)
    first, end = e.i64(0), e.i64(pieces)
    if pieces > 1:
        first, end = kernel.share(pieces, columns=_STRIP, of=tuple(sorted(strips.names)))
    if whole:
        with e.loop(e.minimum(end, e.i64(whole)), start=first) as loop:
            strips.write(e.mul(loop.index, e.i64(_STRIP)), _STRIP, None)
    if rest:
        with e.when(e.compare("eq", end, e.i64(pieces))):
            strips.write(e.i64(whole * _STRIP), rest, None)
