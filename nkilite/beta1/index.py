"""Index tensors of Beta 1: `nl.arange`, `nl.mgrid`, and affine arithmetic on them.

An index tensor holds an offset plus a stride along each dimension of its grid, never numbers: that is all a subscript
needs to become an access pattern. Grids and index tensors are interned, and arithmetic on them is remembered, so that a
kernel which unrolls to many instructions pays for a few lookups each time, and equal subscripts have equal keys.
Source: "Advanced Tensor Indexing" in the programming model of Beta 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NoReturn, cast, overload

import numpy as np

from nkilite.beta1.mask import Condition, Mask
from nkilite.errors import InvalidIndex, ShapeMismatch, UnknownName, describe
from nkilite.suggest import unknown_attribute

if TYPE_CHECKING:
    from nkilite.beta1.indirect import DynamicIndex

_ALL = slice(None)
_COLUMN, _ROW = (_ALL, None), (None, _ALL)
_MOST = 1 << 16  # index tensors kept of a grid


class LoopIndex(int):
    """A loop variable: an int that its loop knows (nkilite/beta1/loops.py)."""

    __slots__ = ()


class Grid:
    """Interned: the dimensions of an index tensor, and its step along each of them.

    Attributes:
        low, high: the smallest and largest value above the offset.
        at: its index tensors by their offset.
        memo: results of arithmetic with it; forms: of subscripts.
    """

    __slots__ = ("at", "forms", "high", "low", "memo", "shape", "strides")
    _interned: ClassVar[dict[tuple[object, ...], Grid]] = {}

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    low: int
    high: int
    at: dict[int, Index]
    memo: dict[object, Grid]
    forms: dict[int, Grid]

    @classmethod
    def of(cls, shape: tuple[int, ...], strides: tuple[int, ...]) -> Grid:
        strides = tuple(0 if n == 1 else s for n, s in zip(shape, strides, strict=True))
        found = cls._interned.get((shape, strides))
        if found is None:
            found = cls._interned[shape, strides] = cls()
            found.shape, found.strides = shape, strides
            reach = [s * (n - 1) for n, s in zip(shape, strides, strict=True)]
            found.low, found.high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
            found.at, found.memo, found.forms = {}, {}, {}
        return found

    def times(self, factor: int) -> Grid:
        found = self.memo.get(factor)
        if found is None:
            found = self.memo[factor] = Grid.of(self.shape, tuple(s * factor for s in self.strides))
        return found

    def plus(self, other: Grid) -> Grid:
        """The grid of a sum: dimensions of size 1 repeat."""
        found = self.memo.get(other)
        if found is None:
            ndim = max(len(self.shape), len(other.shape))
            (shape, strides), (more, steps) = self._padded(ndim), other._padded(ndim)
            if any(m != n and 1 not in (m, n) for m, n in zip(shape, more, strict=True)):
                raise ShapeMismatch(
                    instruction="index arithmetic",
                    detail=f"index tensors of shapes {self.shape} and {other.shape} do not broadcast",
                )
            both = zip(shape, strides, more, steps, strict=True)
            found = self.memo[other] = Grid.of(
                tuple(max(n, m) for n, m in zip(shape, more, strict=True)), tuple(s + t for _, s, _, t in both)
            )
        return found

    def _padded(self, ndim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        missing = ndim - len(self.shape)
        return (1,) * missing + self.shape, (0,) * missing + self.strides


class Index:
    """Interned: an affine index tensor, `offset` plus the steps of `grid`."""

    __slots__ = ("_column", "_row", "grid", "offset")

    offset: int
    grid: Grid
    _column: Index | None  # [:, None]
    _row: Index | None  # [None, :]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.grid.shape

    @property
    def ndim(self) -> int:
        return len(self.grid.shape)

    def __repr__(self) -> str:
        steps = "".join(f" + {s} * i{d}" for d, s in enumerate(self.grid.strides) if s)
        return f"index tensor {self.grid.shape} of {self.offset}{steps}"

    def numpy(self) -> np.ndarray:
        """Its values."""
        values = np.full(self.grid.shape, self.offset, np.int64)
        for dim, (size, stride) in enumerate(zip(self.grid.shape, self.grid.strides, strict=True)):
            values += stride * np.arange(size).reshape([-1 if d == dim else 1 for d in range(self.ndim)])
        return values

    def __getitem__(self, key: object) -> Index:
        """New axes by None; `:` and `...` keep dimensions."""
        if type(key) is tuple and key:
            if key[0] is None:
                if self._row is not None and key == _ROW:
                    return self._row
            elif self._column is not None and key == _COLUMN:
                return self._column
            form = 1
            for k in key:
                if k is None:
                    form += form
                elif k.__class__ is slice and k.start is None and k.stop is None and k.step is None:
                    form += form + 1
                else:
                    return self._reshaped(key)
            grid = self.grid.forms.get(form)
            if grid is None:
                grid = self.grid.forms[form] = self._reshaped(key).grid
            found = index(self.offset, grid)
            if key == _COLUMN:
                self._column = found
            elif key == _ROW:
                self._row = found
            return found
        return self._reshaped(key)

    def _reshaped(self, key: object) -> Index:
        keys = key if isinstance(key, tuple) else (key,)
        shape: list[int] = []
        strides: list[int] = []
        left = list(zip(self.grid.shape, self.grid.strides, strict=True))
        for position, k in enumerate(keys):
            if k is None:
                shape.append(1)
                strides.append(0)
                continue
            later = sum(other is not None and other is not Ellipsis for other in keys[position + 1 :])
            if k is Ellipsis:
                taken, left = left[: len(left) - later], left[len(left) - later :]
            elif isinstance(k, slice) and k == slice(None) and left:
                taken, left = left[:1], left[1:]
            else:
                raise InvalidIndex(what=f"{describe(k)} of an index tensor", hint="index it with : and None only.")
            shape += [n for n, _ in taken]
            strides += [s for _, s in taken]
        shape += [n for n, _ in left]
        strides += [s for _, s in left]
        return index(self.offset, Grid.of(tuple(shape), tuple(strides)))

    # --- arithmetic ---------------------------------------------------------------------------------------------

    @overload
    def __add__(self, other: int | np.integer | Index) -> Index: ...
    @overload
    def __add__(self, other: object) -> Index | DynamicIndex: ...
    def __add__(self, other: object) -> Index | DynamicIndex:
        if isinstance(other, int):
            try:
                return self.grid.at[self.offset + other]
            except KeyError:
                return index(self.offset + other, self.grid)
        if other.__class__ is Index:
            return index(self.offset + other.offset, self.grid.plus(other.grid))
        if isinstance(other, np.integer):
            return index(self.offset + int(other), self.grid)
        if isinstance(other, float):
            raise _not_affine(f"a sum with {other!r}")
        return dynamic[0](other, self)

    __radd__ = __add__

    def __sub__(self, other: object) -> Index:
        if isinstance(other, (int, np.integer)):
            return index(self.offset - int(other), self.grid)
        if other.__class__ is Index:
            return index(self.offset - other.offset, self.grid.plus(other.grid.times(-1)))
        return NotImplemented

    def __rsub__(self, other: object) -> Index | DynamicIndex:
        return -self + other

    def __neg__(self) -> Index:
        return index(-self.offset, self.grid.times(-1))

    def __pos__(self) -> Index:
        return self

    def __mul__(self, other: object) -> Index:
        if other.__class__ is int:
            return index(self.offset * other, self.grid.memo.get(other) or self.grid.times(other))
        if isinstance(other, (int, np.integer)):
            return index(self.offset * int(other), self.grid.times(int(other)))
        if isinstance(other, float) and other.is_integer():
            return self * int(other)
        if other.__class__ is Index:
            if not any(other.grid.strides):
                return index(self.offset * other.offset, self.grid.plus(other.grid).times(other.offset))
            raise _not_affine("a product of two index tensors")
        if isinstance(other, float):
            raise _not_affine(f"a product with {other!r}")
        return NotImplemented

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> Index:
        if not isinstance(other, (int, np.integer)) or other < 1:
            raise _not_affine(f"a quotient by {describe(other)}")
        return self._divided(int(other))[0]

    def __mod__(self, other: object) -> Index:
        if not isinstance(other, (int, np.integer)) or other < 1:
            raise _not_affine(f"a remainder by {describe(other)}")
        return self._divided(int(other))[1]

    def _divided(self, by: int) -> tuple[Index, Index]:
        """Quotient and remainder, where they are affine: strides are multiples of `by`, or one quotient serves all."""
        whole = tuple(s if s % by == 0 else 0 for s in self.grid.strides)
        rest = Grid.of(self.grid.shape, tuple(s - w for s, w in zip(self.grid.strides, whole, strict=True)))
        remainder = self.offset % by
        if not 0 <= remainder + rest.low <= remainder + rest.high < by:
            raise _not_affine(f"{self!r} divided by {by}")
        quotient = Grid.of(self.grid.shape, tuple(w // by for w in whole))
        return index(self.offset // by, quotient), index(remainder, rest)

    # --- comparisons --------------------------------------------------------------------------------------------

    def __lt__(self, other: object) -> Mask | bool:
        if other.__class__ is int:  # nearly always the same at every position
            if self.offset + self.grid.high < other:
                return True
            if self.offset + self.grid.low >= other:
                return False
        return _above(other, self, strict=True)

    def __le__(self, other: object) -> Mask | bool:
        return _above(other, self, strict=False)

    def __gt__(self, other: object) -> Mask | bool:
        return _above(self, other, strict=True)

    def __ge__(self, other: object) -> Mask | bool:
        if other.__class__ is int:
            if self.offset + self.grid.low >= other:
                return True
            if self.offset + self.grid.high < other:
                return False
        return _above(self, other, strict=False)

    def __eq__(self, other: object) -> Mask | bool:  # type: ignore[override]
        difference = _difference(self, other)
        return NotImplemented if difference is None else Mask.of(Condition.zero, difference)

    def __ne__(self, other: object) -> Mask | bool:  # type: ignore[override]
        difference = _difference(self, other)
        return NotImplemented if difference is None else Mask.of(Condition.nonzero, difference)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise InvalidIndex(what="an index tensor as a truth value", hint="pass a comparison of it as mask=.")

    @classmethod
    def unknown_attribute(cls, name: str) -> UnknownName:
        """The error for an attribute it does not have, in the place of Python's."""
        return unknown_attribute(cls, "index tensor", name, {})


def _refuse(symbol: str) -> Callable[..., NoReturn]:
    def refusal(self: Index, *_: object) -> NoReturn:
        raise _not_affine(f"{symbol} of an index tensor")

    return refusal


for _name, _symbol in (
    ("truediv", "/"), ("pow", "**"), ("matmul", "@"), ("lshift", "<<"), ("rshift", ">>"), ("divmod", "divmod()"),
):
    setattr(Index, f"__{_name}__", _refuse(_symbol))
    setattr(Index, f"__r{_name}__", _refuse(_symbol))
setattr(Index, "__abs__", _refuse("abs()"))  # noqa: B010


def _above(larger: object, smaller: object, strict: bool) -> Mask | bool:
    """The mask larger > smaller, or larger >= smaller."""
    difference = _difference(larger, smaller)
    if difference is None:
        return cast(bool, NotImplemented)
    if strict:
        difference = index(math.ceil(difference.offset) - 1, difference.grid)
    else:
        difference = index(math.floor(difference.offset), difference.grid)
    return Mask.of(Condition.nonnegative, difference)


def _difference(left: object, right: object) -> Index | None:
    """left - right, whose offset may be a float; None if one of them is no number."""
    if left.__class__ is Index and right.__class__ is Index:
        difference: Index = left - right
        return difference
    if left.__class__ is Index and isinstance(right, (int, float, np.integer, np.floating)):
        return index(cast(int, left.offset - _plain(right)), left.grid)
    if right.__class__ is Index and isinstance(left, (int, float, np.integer, np.floating)):
        return index(cast(int, _plain(left) - right.offset), right.grid.times(-1))
    return None


def _plain(number: float | np.integer | np.floating) -> float:
    value: float = number.item() if isinstance(number, np.generic) else number
    return int(value) if isinstance(value, float) and value.is_integer() else value


# `tile + index tensor`, set by nkilite/beta1/indirect.py.
dynamic: list[Callable[[object, Index], DynamicIndex]] = [lambda other, index: NotImplemented]


def index(offset: int, grid: Grid) -> Index:
    """The index tensor of an offset and a grid."""
    found = grid.at.get(offset)
    if found is None:
        if len(grid.at) >= _MOST:
            grid.at.clear()
        found = grid.at[offset] = Index()
        found.offset, found.grid = offset, grid
        found._column = found._row = None
    return found


def _not_affine(what: str) -> InvalidIndex:
    return InvalidIndex(
        what=f"{what}, which is not affine", hint="write indices as sums of index tensors times ints, or use more of "
        "their dimensions.",
    )


def arange(first: int, *others: int) -> Index:
    """Positions start, start + step, ... below stop, as `nl.arange(stop)` or `nl.arange(start, stop, step)`.

    Raises:
        InvalidIndex: a bound is no int, or there are no positions.
    """
    kept, known = (_aranges, (first, *others)) if others else (_stops, first)
    try:
        return kept[known]
    except (KeyError, TypeError):  # new, or no ints: explained below
        pass
    bounds = first, *others
    for bound in bounds:
        if isinstance(bound, bool) or not isinstance(bound, (int, np.integer)):
            raise InvalidIndex(what=f"nl.arange of {describe(bound)}", hint="use ints (// instead of /).")
    positions = range(*map(int, bounds))
    if not positions:
        raise InvalidIndex(what=f"nl.arange{bounds}, which is empty", hint="give it at least one position.")
    made = index(positions.start, Grid.of((len(positions),), (positions.step,)))
    kept[known] = made
    return made


_stops: dict[object, Index] = {}  # by the only bound
_aranges: dict[object, Index] = {}  # by all bounds


class _Grids(tuple[Index, ...]):
    """The index tensors of `nl.mgrid[...]`, also as .p (partitions), .x, .y, .z and .w."""

    __slots__ = ()

    @property
    def p(self) -> Index:
        return self[0]

    @property
    def x(self) -> Index:
        return self[1]

    @property
    def y(self) -> Index:
        return self[2]

    @property
    def z(self) -> Index:
        return self[3]

    @property
    def w(self) -> Index:
        return self[4]


class _Mgrid:
    """`nl.mgrid[0:128, 0:512]`: one index tensor per slice, each along its own dimension."""

    def __getitem__(self, key: object) -> _Grids:
        """
        Raises:
            InvalidIndex: something is no slice of ints, or is empty.
        """
        slices = key if isinstance(key, tuple) else (key,)
        bounds = tuple([(k.start, k.stop, k.step) if isinstance(k, slice) else k for k in slices])
        try:
            return _mgrids[bounds]
        except (KeyError, TypeError):  # new, or no ints: explained below
            pass
        found = []
        for dim, k in enumerate(slices):
            if not isinstance(k, slice) or k.stop is None:
                raise InvalidIndex(what=f"nl.mgrid of {describe(k)}", hint="write nl.mgrid[0:rows, 0:columns].")
            axis = arange(0 if k.start is None else k.start, k.stop, 1 if k.step is None else k.step)
            shape = tuple(axis.grid.shape[0] if d == dim else 1 for d in range(len(slices)))
            strides = tuple(axis.grid.strides[0] if d == dim else 0 for d in range(len(slices)))
            found.append(index(axis.offset, Grid.of(shape, strides)))
        if len(_mgrids) < _MOST:
            _mgrids[bounds] = _Grids(found)
        return _Grids(found)


_mgrids: dict[tuple[object, ...], _Grids] = {}
mgrid = _Mgrid()
