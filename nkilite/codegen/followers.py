"""Elementwise instructions that take the sums of matmuls away, a strip of columns at a time."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import matrix, pack
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.codegen.matrix import Matrix
from nkilite.host.memory import LINE
from nkilite.schedule.panels import WIDTH, Panels


class Followers:
    """The members of a group that follow its matmuls."""

    def __init__(
        self, kernels: Sequence[MicroKernel], sums: Sequence[set[str]], rows: int, columns: int
    ) -> None:
        """
        Args:
            sums: of every member, the operands that are the sums, where these are in no memory of their own.
            rows, columns: of the sums.
        """
        self._kernels = kernels
        self._rows = rows
        self._sums = sums
        self._wide = [{n for n, o in k.operands.items() if o.columns == columns} for k in kernels]
        # Asked for outside of all loops.
        self._bases = [
            {n: k.pointer(n) for n in k.operands if n not in names}
            for k, names in zip(kernels, self._sums, strict=True)
        ]

    @property
    def names(self) -> set[str]:
        """The operands that have a column for each of the sums."""
        return set().union(*self._wide)

    def touch(self, row: Value, column: Value, width: int) -> None:
        """Fetch what the followers will touch of a row in `width` columns."""
        for kernel, wide, bases in zip(self._kernels, self._wide, self._bases, strict=True):
            e = kernel.e
            writes = {o.name for o in kernel.call.operands if o.writes}
            for name in sorted(wide & bases.keys()):
                operand = kernel.operands[name]
                if operand.panels is not None:
                    continue
                size = operand.dtype.itemsize
                at = e.step(e.step(bases[name], row, operand.strides[0]), column, size)
                for byte in range(0, width * size, LINE):
                    e.prefetch(e.offset(at, byte), write=name in writes)

    def write(
        self, column: Value, width: int, sums: Matrix | None, part: tuple[Value, Value] | None = None
    ) -> None:
        """Their code for `width` columns. What goes to panels is made in rows of scratch and then packed.

        Args:
            sums: the strip, where it is in no memory of its own.
            part: first and end of the panels of rows to do, if not all rows.
        """
        if part is None:
            self._block(column, width, sums, None, self._rows)
            return
        first, end = part
        with self._kernels[0].e.loop(end, start=first) as loop:
            self._block(column, width, sums, loop.index, WIDTH)

    def _block(self, column: Value, width: int, sums: Matrix | None, panel: Value | None, rows: int) -> None:
        """Their code for `rows` rows: those of a panel, or all."""
        for kernel, names, wide, bases in zip(self._kernels, self._sums, self._wide, self._bases, strict=True):
            operands: dict[str, CpuOperand] = {}
            pointers: dict[str, Value] = {}
            packed: list[tuple[Panels, Value, Matrix]] = []
            for name, operand in kernel.operands.items():
                size = operand.dtype.itemsize
                if name in names:
                    assert sums is not None
                    pointers[name], pitch = sums.pointer, sums.row_stride
                else:
                    pitch = operand.strides[0]
                    pointers[name] = kernel.e.step(bases[name], column, size) if name in wide else bases[name]
                if panel is not None:
                    pointers[name] = kernel.e.step(pointers[name], panel, WIDTH * pitch)
                shape = rows, width if name in wide else 1
                if operand.panels is not None:
                    strip = matrix.dense_scratch(kernel, operand.dtype, *shape)
                    packed.append((operand.panels, bases[name], strip))
                    pointers[name], pitch = strip.pointer, strip.row_stride
                operands[name] = operand._replace(shape=shape, strides=(pitch, size), panels=None)
            kernel.write_part(operands, pointers)
            for panels, base, strip in packed:
                pack.strip(kernel.e, panels, kernel.e.step(base, column, panels.panel // WIDTH), strip)
