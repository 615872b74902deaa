"""Loop nests: one iteration space for operands of different shapes over the same row-major element order."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from math import prod
from typing import NamedTuple, TypeVar, cast

from nkilite.ir.sizes import unknown

Layout = tuple[tuple[int, ...], tuple[int, ...]]  # shape, byte strides
_Function = TypeVar("_Function", bound=Callable[..., object])


class Dim(NamedTuple):
    """A loop: its trip count and the byte stride of every operand."""

    count: int  # type: ignore[assignment]  # tuple.count is of no use here
    strides: tuple[int, ...]


def unify(layouts: list[Layout]) -> list[Dim] | None:
    """Loops, outermost first, that visit all operands' elements in row-major order.

    Dimensions are split where another operand has a boundary and merged where every operand is dense. None
    when the boundaries do not nest (such as shapes (3, 4) and (4, 3) of strided views).
    """
    dims = _united([collapse(layout) for layout in layouts])
    return None if dims is None else merge(dims)


def loops(layouts: list[Layout]) -> list[Dim] | None:
    """As `unify`, for operations that may visit elements in any order.

    Loops stay apart where numbers are not known: code for some sizes that happen to be dense would be right for few.
    """
    if all(map(_known, layouts)):
        return unify(layouts)
    dims = _united(layouts)
    return None if dims is None else [dim for dim in dims if dim.count != 1]


def _united(layouts: list[Layout]) -> list[Dim] | None:
    """The loops between all boundaries; None if these do not nest."""
    total = prod(layouts[0][0])
    assert all(prod(shape) == total for shape, _ in layouts), layouts
    boundaries = [1, total]
    for shape, _ in layouts:
        inner = 1
        for n in reversed(shape):
            inner *= n
            boundaries.append(inner)
    edges = [edge for edge, _ in itertools.groupby(sorted(boundaries))]
    if any(b % a for a, b in itertools.pairwise(edges)):
        return None
    dims: list[Dim] = []
    for inner, outer in reversed(list(itertools.pairwise(edges))):
        dims.append(Dim(outer // inner, tuple(_stride_at(layout, inner) for layout in layouts)))
    return dims


def _looked_up(function: _Function) -> _Function:
    """Remember the results of a function of a layout and numbers, where all of these are known."""
    known = functools.lru_cache(1 << 14)(function)

    @functools.wraps(function)
    def found(layout: Layout, *numbers: int) -> object:
        return (known if _known(layout) and not unknown(numbers) else function)(layout, *numbers)

    return cast(_Function, found)


def _known(layout: Layout) -> bool:
    return not (unknown(layout[0]) or unknown(layout[1]))


@_looked_up
def collapse(layout: Layout) -> Layout:
    """The same addresses in the fewest dimensions."""
    dims = merge([Dim(n, (stride,)) for n, stride in zip(*layout, strict=True)])
    return tuple(d.count for d in dims), tuple(d.strides[0] for d in dims)


@_looked_up
def cut(layout: Layout, length: int) -> tuple[Layout, Layout] | None:
    """Layouts of the pieces of `length` elements and of one piece; None if the pieces differ."""
    outer: list[tuple[int, int]] = []
    inner: list[tuple[int, int]] = []
    size = 1
    for n, stride in zip(reversed(layout[0]), reversed(layout[1]), strict=True):
        within = min(n, length // size)
        if length % (size * within) or n % within:
            return None
        inner.append((within, stride))
        outer.append((n // within, stride * within))
        size *= within
    return _layout(outer), _layout(inner)


def take(layout: Layout, of: int, run: int, index: int) -> tuple[int, Layout] | None:
    """Of every `of` runs of `run` elements, that of an index: where the first begins, and the layout of all.

    None if the runs differ.
    """
    runs = cut(layout, run)
    sets = cut(runs[0], of) if runs is not None else None
    if runs is None or sets is None:
        return None
    start, rest = 0, index
    for n, stride in zip(reversed(sets[1][0]), reversed(sets[1][1]), strict=True):
        start += rest % n * stride
        rest //= n
    joined = collapse((sets[0][0] + runs[1][0], sets[0][1] + runs[1][1]))
    return start, joined


def _layout(dims: list[tuple[int, int]]) -> Layout:
    """The layout of (count, stride) pairs, innermost first."""
    return collapse((tuple(n for n, _ in reversed(dims)), tuple(s for _, s in reversed(dims))))


def _stride_at(layout: Layout, inner: int) -> int:
    """Byte stride of the step that advances `inner` elements in row-major order."""
    size = 1
    for n, stride in zip(reversed(layout[0]), reversed(layout[1]), strict=True):
        if n == 1:
            continue
        if size <= inner < size * n:
            return stride * (inner // size)
        size *= n
    return 0


def merge(dims: list[Dim]) -> list[Dim]:
    """Join neighbouring loops that every operand walks densely; drop loops of one trip."""
    result: list[Dim] = []
    for dim in dims:
        if dim.count == 1:
            continue
        if result and all(
            outer == inner * dim.count for outer, inner in zip(result[-1].strides, dim.strides, strict=True)
        ):
            result[-1] = Dim(result[-1].count * dim.count, dim.strides)
        else:
            result.append(dim)
    return result


def contiguous_last(dims: list[Dim], itemsizes: list[int], least: int) -> list[Dim]:
    """Reorder loops so that the innermost is the best one to vectorize.

    The last loop stays unless it is short or strided and another loop of at least `least` trips is dense in
    more operands. Only valid when the order of iterations does not matter.
    """
    if len(dims) < 2:
        return dims

    def quality(dim: Dim) -> tuple[bool, int]:
        dense = sum(s in (0, size) for s, size in zip(dim.strides, itemsizes, strict=True))
        return dim.count >= least, dense

    best = max(range(len(dims)), key=lambda i: (*quality(dims[i]), i))
    if best != len(dims) - 1 and quality(dims[best]) > quality(dims[-1]):
        dims = [*dims[:best], *dims[best + 1:], dims[best]]
    return dims
