"""Instructions that only move elements, as loops with a step in either memory, and what several of them do together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from nkilite import dtypes
from nkilite.dtypes import DType
from nkilite.ir.program import Operand, Signature
from nkilite.ir.regions import PARTITION, Pattern, pattern
from nkilite.ir.types import ViewType
from nkilite.schedule import tree as trees
from nkilite.schedule.panels import WIDTH, step
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Steps

_IN_PANELS = frozenset({dtypes.float32, dtypes.bfloat16, dtypes.float16})  # that are packed as they are turned


class Axis(NamedTuple):
    """A loop: trips, and bytes from one to the next, of row-major storage or of the line of a space."""

    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    to: int
    origin: int


class Move(NamedTuple):
    """Elements of `size` bytes that go from byte `origin` of the line of buffer `source` on to byte `to` of another."""

    source: int
    origin: int
    to: int
    size: int
    axes: tuple[Axis, ...]

    @property
    def place(self) -> tuple[object, ...]:
        """What it writes to, in its buffer."""
        return self.to, self.size, frozenset((axis.count, axis.to) for axis in self.axes)

    @property
    def written(self) -> Pattern:
        """The bytes that it writes; steps are not negative."""
        return pattern(self.size, ((axis.count, axis.to) for axis in self.axes))

    @property
    def elements(self) -> int:
        return prod(axis.count for axis in self.axes)


class Shape(NamedTuple):
    """What a signature moves: its operands and the loops over their elements."""

    target: Operand
    source: Operand
    size: int
    axes: tuple[Axis, ...]

    @property
    def turns(self) -> bool:
        """Whether neighbours on either side are apart on the other."""
        near_to = any(axis.to == self.size < axis.origin for axis in self.axes)
        return near_to and any(axis.origin == self.size < axis.to for axis in self.axes)


def shape_of(signature: Signature) -> Shape | None:
    """How a signature moves elements; None if it does anything else, or takes addresses from memory."""
    move, order = signature.access.move, signature.access.order
    if move is None or order is None:
        return None
    target, source = map(signature.operand, move)
    kinds = target.type, source.type
    if any(k.indirection is not None or any(s < 0 for s in k.strides) for k in kinds):
        return None
    axes = _together(kinds[0], kinds[1], order)
    return Shape(target, source, kinds[0].dtype.itemsize, axes) if axes is not None else None


def _together(target: ViewType, source: ViewType, order: Sequence[int]) -> tuple[Axis, ...] | None:
    """Loops over the elements of both in row-major order, `order` being that of the source's dimensions.

    None where one's dimensions end within those of the other.
    """
    size = target.dtype.itemsize
    left = [(n, s) for n, s in zip(target.shape, target.strides, strict=True) if n > 1]
    right = [(source.shape[d], source.strides[d]) for d in order if source.shape[d] > 1]
    axes: list[Axis] = []
    while left and right:
        (n, to), (m, origin) = left.pop(), right.pop()
        count = min(n, m)
        if n % count or m % count:
            return None
        axes.append(Axis(count, to * size, origin * size))
        if n > count:
            left.append((n // count, to * count))
        if m > count:
            right.append((m // count, origin * count))
    return tuple(reversed(axes))


def on_lines(axes: Iterable[Axis], to: int, origin: int) -> tuple[Axis, ...]:
    """Loops over row-major storage of rows of so many bytes as loops on the lines of the two spaces."""
    return tuple(
        Axis(n, a // to * PARTITION + a % to, b // origin * PARTITION + b % origin) for n, a, b in axes
    )


def split(way: int) -> tuple[int, int]:
    """A way along a line in partitions and bytes."""
    partitions, byte = divmod(way + PARTITION // 2, PARTITION)
    return partitions, byte - PARTITION // 2


def turned_into_panels(shape: Shape) -> bool:
    """Whether a move can fill a tile that lies in panels with what rows of its source become: columns."""
    kind = shape.target.type
    row = kind.strides[0] * shape.size
    if not kind.region.on_chip or kind.shape[0] < 2 or row < shape.size:
        return False
    steps = [Steps(n, divmod(to, row), (0, origin)) for n, to, origin in shape.axes]
    return fills_panels(steps, kind.dtype, kind.shape[0])


def fills_panels(loops: Sequence[Steps], dtype: DType, depth: int) -> bool:
    """Whether loops take rows to columns of whole panels, and to whole groups of so many partitions."""
    size = dtype.itemsize
    down = [loop for loop in loops if loop.to[0]]
    along = [loop for loop in loops if loop.to == (0, size)]
    others = [loop for loop in loops if loop not in down and loop not in along]
    return (
        dtype in _IN_PANELS
        and len(down) == len(along) == 1
        and (down[0].to, down[0].origin) == ((1, 0), (0, size))
        and (down[0].count % depth, along[0].count % WIDTH) == (0, 0)
        and all(loop.to[1] % (WIDTH * size) == 0 for loop in others)
    )


def writable(schedule: Schedule, buffer: int, move: trees.Move, size: int) -> bool:
    """Whether a move can fill a tile in panels, if it is in one: rows become whole panels, and groups of partitions."""
    feed = schedule.panels.get(buffer)
    if feed is None:
        return True
    whole = (move.to.bytes // size % WIDTH, move.to.partitions % step(feed)) == (0, 0)
    return whole and fills_panels(move.loops, schedule.program.buffers[buffer].dtype, step(feed))


def behind(read: Move, written: Sequence[Move]) -> list[Move] | None:
    """The moves that bring the elements of `read` from where `written` took them; None if that is hard to say.

    Args:
        written: all that is known of the buffer that `read` takes its elements from, no element twice.
    """
    found: list[Move] = []
    for earlier in written:
        if earlier.size != read.size:
            return None
        inside = _follow(
            read.origin - earlier.to, [(n, origin, to) for n, to, origin in read.axes], earlier.axes
        )
        if inside is not None:
            first, loops = inside
            axes = tuple(Axis(n, to, origin) for n, to, origin in loops)
            return [Move(earlier.source, earlier.origin + first, read.to, read.size, axes)]
        around = _follow(
            earlier.to - read.origin, earlier.axes, [Axis(n, origin, to) for n, to, origin in read.axes]
        )
        if around is not None:
            first, loops = around
            axes = tuple(Axis(n, to, origin) for n, origin, to in loops)
            found.append(Move(earlier.source, earlier.origin, read.to + first, read.size, axes))
    return found if sum(move.elements for move in found) == read.elements else None


def _follow(
    start: int, loops: Iterable[tuple[int, int, int]], view: Sequence[Axis]
) -> tuple[int, list[tuple[int, int, int]]] | None:
    """Where the elements that loops reach in a view are on the view's other side.

    Args:
        start: where the first one is, relative to the first element of the view's `to` side.
        loops: trips, step on that side, and a step to keep.
        view: has no two elements at the same place of its `to` side.

    Returns:
        Where the first one is relative to the view's first element; trips, kept steps, and steps of the loops there.
        None if not all are in the view.
    """
    order = sorted((axis for axis in view if axis.count > 1), key=lambda axis: -axis.to)
    reach = 0
    for axis in reversed(order):
        if axis.to <= reach:
            return None
        reach += axis.to * (axis.count - 1)
    last: list[int] = []  # the largest index along every axis so far
    first = 0
    for axis in order:
        index, start = divmod(start, axis.to)
        if not 0 <= index < axis.count:
            return None
        last.append(index)
        first += index * axis.origin
    if start:
        return None
    result: list[tuple[int, int, int]] = []
    pending = [loop for loop in loops if loop[0] > 1]
    while pending:
        count, step, kept = pending.pop(0)
        if step == 0:
            result.append((count, kept, 0))
            continue
        level = next((i for i, axis in enumerate(order) if axis.to <= step), None)
        if level is None or step % order[level].to:
            return None
        axis, by = order[level], step // order[level].to
        room = (axis.count - 1 - last[level]) // by + 1
        if count > room:  # it goes on along the next longer axis
            if last[level] or room == 1 or axis.count % by or count % room:
                return None
            pending.insert(0, (count // room, step * room, kept * room))
            count = room
        last[level] += by * (count - 1)
        result.append((count, kept, by * axis.origin))
    return first, result
