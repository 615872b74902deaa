"""Places of a space, and which of those that were written share bytes with another one.

A place lies in columns of the space's partitions, or in the only one of a line. Those that are written are found by
their columns: a place is kept in cells as wide as itself or a little wider, so that it is in two of them at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nkilite.ir.regions import PARTITION, Pattern

_MOST_RECTANGLES = 256  # that what is left of a place is cut into
_ANYWHERE = -1  # the level of places that no columns are known of


class Place(NamedTuple):
    """Bytes of a space: a pattern, and where its lowest byte is."""

    low: int
    pattern: Pattern


class Rectangle(NamedTuple):
    """Bytes [left, right) of partitions [top, bottom)."""

    top: int
    bottom: int
    left: int
    right: int


def around(place: Place) -> Rectangle:
    """The smallest rectangle with all bytes of a place."""
    top, left = divmod(place.low, PARTITION)
    rows, width = 1, place.pattern.width
    for count, stride in place.pattern.dims:
        if stride >= PARTITION:
            rows += (count - 1) * stride // PARTITION
        else:
            width += (count - 1) * stride
    return Rectangle(top, top + rows, left, left + width)


def _fills(place: Place) -> bool:
    """Whether a place is a rectangle, all of which is written."""
    return place.pattern.exact and all(stride == PARTITION for _, stride in place.pattern.dims)


def covers(one: Place, other: Place) -> bool:
    """Whether every byte of the other is in a place that is a rectangle; else False."""
    return _fills(one) and not without([around(other)], one)


def without(rectangles: list[Rectangle], place: Place) -> list[Rectangle]:
    """What is left of rectangles beside a place, or more if it is none."""
    if not _fills(place) or len(rectangles) > _MOST_RECTANGLES:
        return rectangles
    cut = around(place)
    found = []
    for one in rectangles:
        top, bottom = max(one.top, cut.top), min(one.bottom, cut.bottom)
        left, right = max(one.left, cut.left), min(one.right, cut.right)
        if top >= bottom or left >= right:
            found.append(one)
            continue
        pieces = (
            one._replace(bottom=top), one._replace(top=bottom),
            Rectangle(top, bottom, one.left, left), Rectangle(top, bottom, right, one.right),
        )
        found += [piece for piece in pieces if piece.top < piece.bottom and piece.left < piece.right]
    return found


class Numbered:
    """Places with a number each, in the order in which they were put there."""

    def __init__(self) -> None:
        self._numbers: dict[Place, tuple[int, int]] = {}  # when it was put there, and the number
        self._cells: dict[int, dict[int, dict[Place, None]]] = {}  # by level and position
        self._times = 0

    def get(self, place: Place) -> int | None:
        found = self._numbers.get(place)
        return None if found is None else found[1]

    def put(self, place: Place, number: int) -> None:
        """As the latest of all."""
        if place not in self._numbers:
            level, cells = _cells(place)
            for cell in cells:
                self._cells.setdefault(level, {}).setdefault(cell, {})[place] = None
        self._times += 1
        self._numbers[place] = self._times, number

    def drop(self, place: Place) -> None:
        del self._numbers[place]
        level, cells = _cells(place)
        for cell in cells:
            del self._cells[level][cell][place]

    def near(self, place: Place) -> list[tuple[Place, int]]:
        """Those that may share bytes with a place, and their numbers, the latest first."""
        found = {other: self._numbers[other] for other in self._around(place)}
        return [(other, n) for other, (_, n) in sorted(found.items(), key=lambda item: -item[1][0])]

    def _around(self, place: Place) -> Iterator[Place]:
        columns = _columns(place)
        for level, cells in self._cells.items():
            if columns is None or level == _ANYWHERE or (columns[1] - columns[0]) >> level > len(cells):
                reached = list(cells.values())
            else:
                positions = range(columns[0] >> level, (columns[1] - 1 >> level) + 1)
                reached = [cells[position] for position in positions if position in cells]
            for cell in reached:
                yield from cell


def _cells(place: Place) -> tuple[int, range]:
    """The level of the cells that a place is in, which are 2**level bytes wide, and their positions."""
    columns = _columns(place)
    if columns is None:
        return _ANYWHERE, range(1)
    level = (columns[1] - columns[0]).bit_length()
    return level, range(columns[0] >> level, (columns[1] - 1 >> level) + 1)


def _columns(place: Place) -> tuple[int, int] | None:
    """From and up to which byte of every partition; None for what is no rows of a partition each."""
    rectangle = around(place)
    rows = all(stride < PARTITION or stride % PARTITION == 0 for _, stride in place.pattern.dims)
    return (rectangle.left, rectangle.right) if rows and rectangle.right <= PARTITION else None
