"""Masks of Beta 1: comparisons of index tensors, joined by &, | and ~.

A mask says which positions of an instruction's grid take part. What it leaves of each dimension is a range wherever
its conditions allow that, so that operands are sliced; what is left over is a predicate, known while the kernel is
traced. Source: "NKI API Masking" in the shared fields of the Beta-1 reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, TypeAlias, overload

import numpy as np

from nkilite.errors import InvalidIndex, describe

if TYPE_CHECKING:
    from nkilite.beta1.index import Index

Box = tuple[range, ...]
_MOST = 1 << 14  # masks kept


class Condition(Enum):
    """How an index tensor is compared with 0, or how masks are joined."""

    nonnegative = ">= 0"
    zero = "== 0"
    nonzero = "!= 0"
    all = "&"
    any = "|"
    none = "~"

    __hash__ = object.__hash__


class Mask:
    """Interned: a condition on an affine expression, or on other masks.

    Attributes:
        expression: what is compared with 0; None where masks are joined.
        parts: the masks that are joined.
    """

    __slots__ = ("_boxes", "condition", "expression", "parts")
    _interned: ClassVar[dict[tuple[object, ...], Mask]] = {}

    condition: Condition
    expression: Index | None
    parts: tuple[Mask, ...]
    _boxes: dict[tuple[int, ...], tuple[Box, bool]]

    def __new__(cls, condition: Condition, expression: Index | None, parts: tuple[Mask, ...] = ()) -> Mask:
        key = condition, expression, parts
        found = cls._interned.get(key)
        if found is None:
            if len(cls._interned) >= _MOST:
                cls._interned.clear()
            found = cls._interned[key] = super().__new__(cls)
            found.condition, found.expression, found.parts, found._boxes = condition, expression, parts, {}
        return found

    @classmethod
    def of(cls, condition: Condition, expression: Index) -> Mask | bool:
        """The mask of a comparison, or its outcome where that is the same at every position."""
        low, high = expression.offset + expression.grid.low, expression.offset + expression.grid.high
        if condition is Condition.nonnegative:
            return True if low >= 0 else False if high < 0 else cls(condition, expression)
        if low == high or low > 0 or high < 0:
            return (low == high == 0) is (condition is Condition.zero)
        return cls(condition, expression)

    # --- joining ------------------------------------------------------------------------------------------------

    @overload
    def __and__(self, other: Mask | None) -> Mask: ...
    @overload
    def __and__(self, other: object) -> Mask | bool: ...
    def __and__(self, other: object) -> Mask | bool:
        if isinstance(other, Mask):
            return Mask(Condition.all, None, (self, other))
        if other is None or other is True:
            return self
        return self if _truth(other) else False

    __rand__ = __and__

    def __or__(self, other: object) -> Mask | bool:
        if isinstance(other, Mask):
            return Mask(Condition.any, None, (self, other))
        return True if _truth(other) else self

    __ror__ = __or__

    def __invert__(self) -> Mask:
        return Mask(Condition.none, None, (self,))

    def __bool__(self) -> bool:
        raise InvalidIndex(
            what="a comparison of index tensors as a truth value",
            hint="join masks with & and | instead of and and or, and pass them as mask=.",
        )

    def terms(self) -> Iterator[Mask]:
        """The masks that & joins to this one."""
        if self.condition is not Condition.all:
            yield self
            return
        for part in self.parts:
            yield from part.terms()

    # --- what it selects ----------------------------------------------------------------------------------------

    @property
    def grid(self) -> tuple[int, ...]:
        """The shape of its positions."""
        if self.expression is not None:
            return self.expression.shape
        shapes = [part.grid for part in self.parts]
        ndim = max(map(len, shapes))
        padded = [(1,) * (ndim - len(s)) + s for s in shapes]
        return tuple(max(sizes) for sizes in zip(*padded, strict=True))

    def numpy(self) -> np.ndarray:
        """Which positions take part; dimensions it does not depend on may have size 1."""
        found: np.ndarray
        if self.condition in (Condition.all, Condition.any):
            join = np.logical_and if self.condition is Condition.all else np.logical_or
            parts = [p.numpy() for p in self.parts]
            try:
                found = join(*parts)
            except ValueError:
                shapes = " and ".join(str(p.shape) for p in parts)
                raise InvalidIndex(
                    what=f"a mask that joins conditions on grids of shapes {shapes}",
                    hint="build the mask from the index tensors that select the tile.",
                ) from None
        elif self.condition is Condition.none:
            found = ~self.parts[0].numpy()
        else:
            assert self.expression is not None
            values = self.expression.numpy()
            if self.condition is Condition.nonnegative:
                found = values >= 0
            else:
                found = (values == 0) == (self.condition is Condition.zero)
        return found

    def box(self, shape: tuple[int, ...]) -> tuple[Box, bool]:
        """The smallest range of every dimension that holds all positions which take part, and whether all in these
        ranges do.

        Args:
            shape: of the tile the mask is for. Dimensions of size 1 stand for all positions of the mask.
        """
        found = self._boxes.get(shape)
        if found is None:
            found = self._boxes[shape] = self._box(shape)
        return found

    def _box(self, shape: tuple[int, ...]) -> tuple[Box, bool]:
        selected = self.positions(shape)
        ranges = []
        for dim in range(len(shape)):
            others = tuple(d for d in range(len(shape)) if d != dim)
            taking = np.flatnonzero(selected.any(axis=others))
            ranges.append(range(int(taking[0]), int(taking[-1]) + 1) if taking.size else range(0))
        inside = selected[tuple(slice(r.start, r.stop) for r in ranges)]
        return tuple(ranges), bool(np.all(inside))

    def positions(self, shape: tuple[int, ...]) -> np.ndarray:
        """Which positions of a tile take part: an array of its shape.

        Raises:
            InvalidIndex: the mask has other positions than the tile.
        """
        found: np.ndarray = self.numpy()
        ndim = len(shape)
        while found.ndim > ndim and 1 in found.shape:
            found = found.reshape(_without_one(found.shape))
        if found.ndim < ndim:
            found = found.reshape((1,) * (ndim - found.ndim) + found.shape)
        fits = found.ndim == ndim and all(
            m in (1, n) or n == 1 or m > n for m, n in zip(found.shape, shape, strict=True)
        )
        if not fits:
            raise InvalidIndex(
                what=f"a mask of shape {self.grid} for a tile of shape {shape}",
                hint="build the mask from the index tensors that select the tile.",
            )
        for dim, size in enumerate(shape):
            if size == 1 and found.shape[dim] > 1:
                found = np.asarray(found.any(axis=dim, keepdims=True))
        found = found[tuple(slice(0, n) for n in shape)]
        return np.broadcast_to(found, shape)


#: What `mask=` takes: comparisons of index tensors, and their outcome where that is the same everywhere.
MaskLike: TypeAlias = "Mask | bool | np.bool_ | None"


def _without_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    at = len(shape) - 1 - shape[::-1].index(1)
    return shape[:at] + shape[at + 1 :]


def _truth(other: object) -> bool:
    if isinstance(other, (bool, int, np.bool_, np.integer)):
        return bool(other)
    raise InvalidIndex(what=f"a mask joined with {describe(other)}", hint="join masks with masks and bools.")


def boxes(selected: np.ndarray) -> Iterator[Box]:
    """Disjoint boxes that hold exactly the selected positions: runs of equal rows, dimension by dimension."""
    if selected.ndim == 0:
        if selected:
            yield ()
        return
    rows = selected.reshape(selected.shape[0], -1)
    stops = [*(np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1).tolist(), len(rows)]
    for start, stop in zip([0, *stops], stops, strict=False):
        if rows[start].any():
            for inner in boxes(selected[start]):
                yield (range(start, stop), *inner)
