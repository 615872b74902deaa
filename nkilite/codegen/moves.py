"""Groups of copies and transposes: elements go from where the first read them to where the last leave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nkilite.codegen import copy, loops, pack_transposed
from nkilite.codegen.emitter import Value
from nkilite.codegen.kernel import CpuOperand, MicroKernel
from nkilite.ir.nest import Dim, unify
from nkilite.schedule.moves import shape_of, turned_into_panels
from nkilite.schedule.panels import WIDTH
from nkilite.schedule.tree import Move, Spot, Steps


def write(members: Sequence[MicroKernel], pieces: Sequence[Move]) -> None:
    """The micro-kernel of a group; calls side by side share its pieces."""
    e = members[0].e
    works = [_work(members, piece) for piece in pieces]
    count = max(work.cut.units for work in works)
    for member in {piece.to.member for piece in pieces}:
        into = _target(members[member])
        own = [piece for piece in pieces if piece.to.member == member]
        if into.panels is not None and all(_same_columns(piece, into.dtype.itemsize) for piece in own):
            members[member].paneled.add(into.name)
    part = None if count == 1 else _share(members, works, count)
    for work in works:
        loops.units(e, work.dims, work.at, work.cut, work.body, part)


def turned(kernel: MicroKernel) -> Move | None:
    """What an instruction on its own moves to a tile in panels, if rows of its source become columns there."""
    call = kernel.call
    shape = shape_of(call)
    if shape is None or not shape.turns or not turned_into_panels(shape):
        return None
    target, source = (kernel.operands[o.name] for o in (shape.target, shape.source))
    order = call.access.order
    assert order is not None
    dims = unify([target.layout, (tuple(source.shape[d] for d in order), tuple(source.strides[d] for d in order))])
    assert dims is not None
    loops = (Steps(n, _split(to, target.pitch), _split(origin, source.pitch)) for n, (to, origin) in dims)
    return Move(Spot(0, 0, 0), Spot(0, 0, 0), tuple(loops), False)


def _split(stride: int, pitch: int) -> tuple[int, int]:
    return divmod(stride, pitch) if pitch else (0, stride)


class _Work(NamedTuple):
    """A piece, ready to be written: loops with the strides of target and source, addresses, units and their code.

    Attributes:
        rows: the operand of whose rows the units are ROWS each, in order; "" if there is none.
    """

    dims: list[Dim]
    at: list[Value]
    cut: loops.Cut
    body: loops.Body
    rows: str


def _target(kernel: MicroKernel) -> CpuOperand:
    """What a move writes."""
    assert kernel.call.access.move is not None
    return kernel.operands[kernel.call.access.move[0]]


def _work(members: Sequence[MicroKernel], piece: Move) -> _Work:
    reader = members[piece.origin.member]
    assert reader.call.access.move is not None
    name = reader.call.access.move[1]
    source = reader.operands[name]
    origin = reader.e.offset(reader.pointer(name), piece.origin.partitions * source.pitch + piece.origin.bytes)
    write = _to_rows if _target(members[piece.to.member]).panels is None else _to_panels
    return write(members[piece.to.member], piece, source, origin)


def _to_rows(kernel: MicroKernel, piece: Move, source: CpuOperand, origin: Value) -> _Work:
    e = kernel.e
    target = _target(kernel)._replace(streams=piece.nontemporal)
    to = e.offset(kernel.pointer(target.name), piece.to.partitions * target.pitch + piece.to.bytes)
    steps = sorted(piece.loops, key=lambda loop: loop.to, reverse=True) or [Steps(1, (0, 0), (0, 0))]
    dims = [Dim(n, (p * target.pitch + b, q * source.pitch + c)) for n, (p, b), (q, c) in steps]
    found = loops.cut(dims, target, source)
    whole = (
        found.unit == loops.ROWS and steps[found.level][:2] == (target.shape[0], (1, 0)) and not piece.to.partitions
    )

    def body(dims: list[Dim], at: list[Value]) -> None:
        copy.nested(kernel, target, source, dims, at)

    return _Work(dims, [to, origin], found, body, target.name if whole else "")


def _to_panels(kernel: MicroKernel, piece: Move, source: CpuOperand, origin: Value) -> _Work:
    """Rows of the source become columns of panels, WIDTH at a time."""
    e = kernel.e
    target = _target(kernel)
    size, panels = target.dtype.itemsize, target.panels
    assert panels is not None
    to = e.offset(kernel.pointer(target.name), panels.offset(piece.to.partitions, piece.to.bytes // size))
    (down,) = (loop.count for loop in piece.loops if loop.to[0])
    steps = sorted((loop for loop in piece.loops if not loop.to[0]), key=lambda loop: loop.to, reverse=True)
    dims = [Dim(n, (b * panels.panel // (WIDTH * size), q * source.pitch + c)) for n, (_, b), (q, c) in steps]
    *outer, (columns, (_, stride)) = dims
    whole = steps[-1].origin == (1, 0) and columns == source.shape[0] and not piece.origin.partitions

    def body(dims: list[Dim], at: list[Value]) -> None:
        with loops.nested(e, outer, at) as (to, origin):
            pack_transposed.panel(e, panels, to, source.dtype, origin, stride, down)

    return _Work(dims, [to, origin], loops.Cut.of(dims, len(outer), WIDTH), body, source.name if whole else "")


def _same_columns(piece: Move, itemsize: int) -> bool:
    """Whether row i of a source goes to column i of the target, and to those that follow at as many as it has rows."""
    columns, *outer = sorted((loop for loop in piece.loops if not loop.to[0]), key=lambda loop: loop.to)
    size = columns.count * itemsize
    return not any(b % size for b in (piece.to.bytes, *(loop.to[1] for loop in outer)))


def _share(members: Sequence[MicroKernel], works: Sequence[_Work], count: int) -> tuple[Value, Value]:
    """A call's share of the units; says whose rows they are if all pieces agree."""
    names = {work.rows for work in works}
    name = names.pop() if len(names) == 1 else ""
    uses = {
        (m.operands[name].shape[0], o.writes) for m in members if name not in m.private
        for o in m.call.operands if o.name == name
    }
    if not name or len(uses) != 1:
        return members[0].share(count)
    return members[0].share(count, rows=loops.ROWS, of=(name,))
