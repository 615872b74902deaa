"""The micro-kernel of a group, its tree walked; or of an instruction in no group.

A loop over rows is cut in steps of whole rows, which go through its body one after the other. Terms are made by
matmuls some columns at a time (nkilite/codegen/accumulation.py, nkilite/codegen/tiles.py), and so is what else is in
the loop around them. What one operation writes to a packed tile, it writes a strip of columns at a time, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from nkilite.codegen import accumulation, matrix, moves, pack, tiles
from nkilite.codegen.body import Body, Memory, Slot
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import MicroKernel
from nkilite.codegen.part import Block
from nkilite.codegen.watch import end_if_told
from nkilite.host.cpu import Products
from nkilite.schedule.panels import WIDTH
from nkilite.schedule.tree import Dim, Loop, Move, Op, Tree, Use, operations

_STRIP = 4 * WIDTH  # columns


def write(members: Sequence[MicroKernel], tree: Tree | None) -> None:
    """Write the code of members, in order and on one emitter, as their tree says; None for one on its own."""
    if tree is None:
        _alone(members[0])
        return
    for op in tree.ops:
        names = (o.name for o in members[op.member].call.operands)
        members[op.member].private |= {n for n, use in zip(names, op.uses, strict=True) if use.place is not None}
    for node in tree.body:
        if isinstance(node, Loop):
            if node.terms is not None:
                _sums(members, node, node.terms)
            else:
                _rows(members, tree, node)
    pieces = [node for node in tree.body if isinstance(node, Move)]
    if pieces:
        moves.write(members, pieces)


def _rows(members: Sequence[MicroKernel], tree: Tree, loop: Loop) -> None:
    """A loop over rows; calls side by side share its steps."""
    e = members[0].e
    slots = [Slot(e.scratch(loop.step * pitch), pitch) for pitch in tree.scratch]
    body = Body(members, loop.body, Memory(slots))
    each = e.i64(loop.parallel)
    together = loop.step * loop.parallel
    first, end = (e.mul(u, each) for u in members[0].share(loop.extent // together, together))
    elements = loop.extent * sum(max((o.columns for o in m.operands.values()), default=0) for m in members)
    with e.loop(end, start=first) as block:
        end_if_told(e, elements)
        body.write(Block(loop.step, block.index), first)
    body.drain(loop.step, first, end)


def _sums(members: Sequence[MicroKernel], loop: Loop, terms: Loop) -> None:
    """Matmuls that add up in one view, and what takes their sums; calls side by side share rows or columns."""
    matmuls = [members[op.member] for op in operations(terms.body)]
    first = matmuls[0]
    operands = [(matrix.in_panels(k, "stationary"), matrix.in_panels(k, "moving")) for k in matmuls]
    rows = operands[0][0].columns
    on_tiles = matrix.products(first, "stationary", "moving") is Products.tiles
    sums = None
    if "dst" in first.private:
        width = tiles.STRIP if on_tiles else accumulation.widest_strip(first.e)
        sums = matrix.dense_scratch(first, first.operands["dst"].dtype, rows, width)
    body = Body(members, loop.body[1:], Memory(sums=sums)) if loop.body[1:] else None
    out = matrix.direct(first, "dst") if sums is None else None
    accumulate = bool(first.call.accumulate)
    share: tuple[Value, Value] | None = None
    if loop.dim is Dim.rows:
        share = first.share(rows // WIDTH, WIDTH)
        for kernel in matmuls:
            kernel.paneled.add("stationary")
    contract = tiles.contract if on_tiles else accumulation.multiply_add
    contract(first.e, operands, out, accumulate, first, body=body, rows=share)


def _alone(kernel: MicroKernel) -> None:
    """An instruction in no group; of panels, its lower rule knows nothing."""
    targets = [kernel.operands[o.name] for o in kernel.call.operands if o.writes and kernel.operands[o.name].panels]
    access = kernel.call.access
    if not targets:
        kernel.call.definition.rule("lower")(kernel.call, kernel)
    elif access.move is not None:
        turned = moves.turned(kernel)
        if turned is not None:
            moves.write([kernel], [turned])
        else:
            pack.pack(kernel, *access.move)
    else:
        _strips(kernel, targets[0].shape[0], targets[0].columns)


def _strips(kernel: MicroKernel, rows: int, columns: int) -> None:
    """An instruction on some columns at a time; calls side by side share them."""
    e = kernel.e
    body = Body([kernel], [Op(0, (Use(),) * len(kernel.call.operands))], Memory())
    whole, rest = divmod(columns, _STRIP)
    pieces = whole + bool(rest)
    first, end = e.i64(0), e.i64(pieces)
    if pieces > 1:
        first, end = kernel.share(pieces, columns=_STRIP, of=body.names)
    if whole:
        with e.loop(e.minimum(end, whole), start=first) as loop:
            body.strip(rows, e.mul(loop.index, _STRIP), _STRIP)
    if rest:
        with e.when(e.compare("eq", end, pieces)):
            body.strip(rows, e.i64(whole * _STRIP), rest)
