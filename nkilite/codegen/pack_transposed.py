"""Fill panels (nkilite/schedule/panels.py) from rows that become their columns."""

from __future__ import annotations

from nkilite.codegen import copy, transpose
from nkilite.codegen.emitter import Emitter, Value
from nkilite.dtypes import DType
from nkilite.host.memory import LINE
from nkilite.schedule.panels import TILE_ROWS, WIDTH, Panels


def panel(e: Emitter, panels: Panels, to: Value, dtype: DType, at: Value, stride: int, count: int) -> None:
    """One panel, `count` partitions of it, from as many rows `stride` bytes apart as it has columns."""

    def row(number: Value) -> Value:
        return e.step(at, number, stride)

    if panels.depth == TILE_ROWS:  # a line is a piece of a row
        with e.loop(count // TILE_ROWS) as group:
            source, target = e.step(at, group.index, LINE), e.step(to, group.index, panels.group)
            for number in range(WIDTH):
                copy.copy_bytes(e, e.offset(target, number * LINE), e.offset(source, number * stride), LINE)
    elif panels.depth == 2:  # pairs of partitions are neighbours in a row, too
        transpose.columns(e, 4, WIDTH, count // 2, row, to, LINE)
    else:
        transpose.float32_columns(e, dtype, WIDTH, count, row, to, LINE)
