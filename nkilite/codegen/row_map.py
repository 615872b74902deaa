"""Elementwise operations row by row of dimension 0, in HBM as on chip; runtime indices may choose the rows."""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import elementwise
from nkilite.codegen.elementwise import Body
from nkilite.codegen.kernel import MicroKernel


def map(kernel: MicroKernel, out: str, inputs: Sequence[str], body: Body) -> None:
    """out[i] = body(e, *inputs[i]) in float32 for every element, in row-major order of shapes of equal sizes.

    Operands with runtime indices need as many rows. Where the call skips indices that are out of bounds, their rows
    are left out; elsewhere one ends the micro-kernel. Without indices threads share the rows, if all have as many.
    """
    e = kernel.e
    operands = {name: kernel.operands[name] for name in (out, *inputs)}
    count = operands[out].shape[0]
    indexed = any(o.by_row for o in operands.values())
    if not indexed and (count == 1 or any(o.shape[0] != count for o in operands.values())):
        elementwise.map(kernel, out, inputs, body)
        return
    for name in operands:
        kernel.pointer(name)
    rows = {
        name: o._replace(shape=o.shape[1:], strides=o.strides[1:], indirection=None) for name, o in operands.items()
    }
    first, end = (e.i64(0), e.i64(count)) if indexed else kernel.share(count, rows=1, of=tuple(operands))
    with e.loop(end, start=first) as loop, kernel.rows([(o, loop.index) for o in operands.values()]) as at:
        part = kernel.part(kernel.call, rows, dict(zip(operands, at, strict=True)))
        elementwise.map(part, out, inputs, body)
