"""Fill tiles that lie in panels (nkilite/ir/panels.py) from tensors in rows whose rows become columns of the tile."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import copy, transpose
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir.group import Transposition
from nkilite.ir.panels import LINE, TILE_ROWS, WIDTH, Panels


def write(members: Sequence[MicroKernel], plan: Transposition) -> None:
    """The code of transposes and the copy after them: no result is written anywhere but to the panels."""
    *transposes, copied = members
    e = copied.e
    data = transposes[0].operands["data"]
    panels = copied.operands["dst"].panels
    assert panels is not None
    copied.private.add("src")
    to = copied.pointer("dst")
    sources = [kernel.pointer("data") for kernel in transposes]
    for kernel in transposes:
        kernel.private.add("dst")
    pieces = data.shape[0] // WIDTH
    first, end = (e.i64(0), e.i64(1)) if pieces == 1 else transposes[0].share(pieces, rows=WIDTH, of=("data",))
    for column, source in zip(plan.columns, sources, strict=True):
        target = e.offset(to, column // WIDTH * panels.panel)
        with e.loop(end, start=first) as piece:
            at = e.step(source, piece.index, WIDTH * data.strides[0])
            _panel(e, panels, e.step(target, piece.index, panels.panel), data, at)


def _panel(e: Emitter, panels: Panels, to: Value, data: CpuOperand, at: Value) -> None:
    """One panel from as many rows as it has columns."""
    stride = data.strides[0]

    def row(number: Value) -> Value:
        return e.step(at, number, stride)

    if panels.depth == TILE_ROWS:  # a line is a piece of a row
        with e.loop(data.columns // TILE_ROWS) as group:
            source, target = e.step(at, group.index, LINE), e.step(to, group.index, panels.group)
            for number in range(WIDTH):
                copy.copy_bytes(e, e.offset(target, number * LINE), e.offset(source, number * stride), LINE)
    elif panels.depth == 2:  # pairs of partitions are neighbours in a row, too
        transpose.columns(e, 4, WIDTH, data.columns // 2, row, to, LINE)
    else:
        transpose.float32_columns(e, data.dtype, WIDTH, data.columns, row, to, LINE)
