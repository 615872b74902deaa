"""Elementwise operations row by row of dimension 0, in HBM as on chip; runtime indices may choose the rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from nkilite.codegen import elementwise
from nkilite.codegen.elementwise import Body
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir.types import IndirectKind


def map(kernel: MicroKernel, out: str, inputs: Sequence[str], body: Body) -> None:
    """out[i] = body(e, *inputs[i]) in float32 for every element, in row-major order of shapes of equal sizes.

    Operands with runtime indices need as many rows. Where the call skips indices that are out of bounds, their rows
    are left out; elsewhere one ends the micro-kernel. Without indices threads share the rows, if all have as many.
    """
    e = kernel.e
    operands = {name: kernel.operands[name] for name in (out, *inputs)}
    count = operands[out].shape[0]
    indexed = any(_indexed(o) for o in operands.values())
    if not indexed and (count == 1 or any(o.shape[0] != count for o in operands.values())):
        elementwise.map(kernel, out, inputs, body)
        return
    pointers = {name: kernel.pointer(name) for name in operands}
    rows = {
        name: o._replace(shape=o.shape[1:], strides=o.strides[1:], indirection=None) for name, o in operands.items()
    }
    first, end = (e.i64(0), e.i64(count)) if indexed else kernel.share(count, rows=1, of=tuple(operands))
    with e.loop(end, start=first) as loop:
        inside: Value | None = None
        at = {}
        for name, operand in operands.items():
            pointer = pointers[name]
            if _indexed(operand):
                index = kernel.index(name, loop.index)
                found = kernel.in_bounds(name, index)
                if kernel.call.skips_out_of_bounds:
                    inside = found if inside is None else e.and_(inside, found)
                else:
                    kernel.stop_unless(found, name, index)
                pointer = e.step(pointer, index, operand.index_stride)
            at[name] = e.step(pointer, loop.index, operand.strides[0])
        with nullcontext() if inside is None else e.when(inside):
            elementwise.map(kernel.part(kernel.call, rows, at), out, inputs, body)


def _indexed(operand: CpuOperand) -> bool:
    """Whether every row has its own runtime index."""
    return operand.indirection is not None and operand.indirection.kind is IndirectKind.vector
