"""Interleave pairs of rows of bfloat16 values, which is how tile units and dot products take them along a contraction.

A line has 16 columns of a pair of rows: of each a 32-bit word, the element of the first row in its lower half.
"""

from __future__ import annotations

from collections.abc import Sequence

from nkilite import dtypes
from nkilite.codegen import elementwise, loops
from nkilite.codegen.emitter import Emitter, Value
from nkilite.codegen.matrix import Matrix, Packed
from nkilite.host.memory import LINE
from nkilite.schedule.panels import PAIR, WIDTH, Panels

_SIDE_BY_SIDE = 4  # panels filled at a time


def packed(e: Emitter, parts: Sequence[Matrix], step: int = 1) -> Packed:
    """Matrices whose rows follow each other along the contraction, as panels of pairs in scratch.

    A row without another one, and lines up to a multiple of `step`, are filled up with zeros.
    """
    columns = parts[0].columns
    lines = -(-len(parts) * -(-parts[0].rows // PAIR) // step) * step
    panels = Panels(dtypes.bfloat16, PAIR, LINE, 2, 4, lines * LINE)
    found = Packed(e.scratch(panels.size(columns)), panels, lines * PAIR, columns)
    step = _SIDE_BY_SIDE * WIDTH
    full = columns // step * step
    if full:
        with e.loop(full, step=step) as loop:
            _panels(e, parts, loop.index, step, found.of(e, loop.index), found)
    if full < columns:
        _panels(e, parts, e.i64(full), columns - full, found.of(e, e.i64(full)), found)
    return found


def _panels(e: Emitter, parts: Sequence[Matrix], column: Value, count: int, target: Value, whole: Packed) -> None:
    """Panels of `count` columns of all rows, side by side."""
    panel, pairs = whole.panels.panel, 0
    for part in parts:
        source = e.step(part.pointer, column, part.column_stride)
        full = part.rows // PAIR
        if full:
            with e.loop(full) as loop:
                row = e.step(source, loop.index, PAIR * part.row_stride)
                into = e.offset(e.step(target, loop.index, LINE), pairs * LINE)
                _lines(e, part, row, e.offset(row, part.row_stride), into, panel, count)
        if part.rows % PAIR:
            row = e.offset(source, PAIR * full * part.row_stride)
            _lines(e, part, row, None, e.offset(target, (pairs + full) * LINE), panel, count)
        pairs += -(-part.rows // PAIR)
    for unused in range(pairs, whole.lines):
        for number in range(-(-count // WIDTH)):
            e.store(e.const("i32", 0, WIDTH), e.offset(target, number * panel + unused * LINE), align=LINE)


def _lines(
    e: Emitter, part: Matrix, even: Value, odd: Value | None, into: Value, panel: int, count: int
) -> None:
    """Interleave the bfloat16 halves of two rows of `count` columns; a missing row is zeros."""
    if count % WIDTH:
        e.store(e.const("i32", 0, WIDTH), e.offset(into, count // WIDTH * panel), align=LINE)
    at, lanes = 0, WIDTH
    while at < count:
        lanes = loops.filled(lanes, count - at)
        low = _half(e, part, e.offset(even, at * part.column_stride), lanes)
        words = e.lshr(low, 16)
        if odd is not None:
            high = _half(e, part, e.offset(odd, at * part.column_stride), lanes)
            words = e.or_(words, e.and_(high, -1 << 16))
        e.store(words, e.offset(into, at // WIDTH * panel + at % WIDTH * 4))
        at += lanes


def _half(e: Emitter, part: Matrix, pointer: Value, lanes: int) -> Value:
    """Elements as float32 bits, of which the upper half is the bfloat16."""
    value = elementwise.load(e, part.dtype, pointer, lanes, part.column_stride, "f32")
    return e.bitcast(value, "i32")
