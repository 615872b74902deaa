"""Dimensions whose sizes only a launch knows, below a bound that a kernel is traced for."""

from __future__ import annotations

from collections.abc import Mapping

from nkilite.errors import InvalidOperand, describe

#: Of every parameter with some: the dimensions of its array that are dynamic, by their positions.
Shapes = tuple[tuple[str, tuple[tuple[int, "Dim"], ...]], ...]

_OPTION = "dynamic_shapes"
_MOST = (1 << 31) - 1  # what a register holds


class Dim:
    """A dynamic dimension: a size from `min` to `max`, which each launch says by the shapes of its arrays.

    Two of the same name and bounds are one dimension, which has one size in a launch.

    Attributes:
        name: an identifier, for messages.
        max: the bound, which the kernel is traced for.
        min: the smallest size.

    Raises:
        InvalidOperand: the name is no identifier, or 1 <= min <= max does not hold.

    Ours; names and meaning are those of torch.export.Dim.
    """

    __slots__ = ("max", "min", "name")

    name: str
    max: int
    min: int

    def __init__(self, name: str, *, max: int, min: int = 1) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise _invalid("nki.Dim", "name", name, "an identifier")
        for operand, value, least in (("min", min, 1), ("max", max, min)):
            if type(value) is not int or not least <= value <= _MOST:
                raise _invalid("nki.Dim", operand, value, f"an int from {least} to {_MOST}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "max", max)
        object.__setattr__(self, "min", min)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a dimension does not change: {self!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and (self.name, self.max, self.min) == (other.name, other.max, other.min)

    def __hash__(self) -> int:
        return hash((self.name, self.max, self.min))

    def __reduce__(self) -> tuple[object, ...]:
        return _dim, (self.name, self.max, self.min)

    def __repr__(self) -> str:
        least = "" if self.min == 1 else f", min={self.min}"
        return f"Dim({self.name!r}, max={self.max}{least})"


def _dim(name: str, max: int, min: int) -> Dim:
    return Dim(name, max=max, min=min)


def shapes_of(option: object) -> Shapes:
    """What `dynamic_shapes` says, in a form that can be compared.

    Raises:
        InvalidOperand: it is no mapping from names of parameters to mappings from axes to dimensions.
    """
    if option is None:
        return ()
    if not isinstance(option, Mapping) or not all(isinstance(name, str) for name in option):
        raise _invalid("nki.jit", _OPTION, option, "a dict from names of parameters to {axis: nki.Dim}")
    found = []
    for name, dims in option.items():
        axes = dims if isinstance(dims, Mapping) else {}
        if not axes or not all(type(axis) is int and isinstance(dim, Dim) for axis, dim in axes.items()):
            raise _invalid("nki.jit", f"{_OPTION}[{name!r}]", dims, "a dict {axis: nki.Dim}")
        found.append((name, tuple(axes.items())))
    return tuple(found)


def numbered(shapes: Shapes) -> dict[Dim, int]:
    """The dimensions, each with its place among the sizes of a launch."""
    return {dim: number for number, dim in enumerate(dict.fromkeys(d for _, axes in shapes for _, d in axes))}


def _invalid(function: str, operand: str, found: object, expected: str) -> InvalidOperand:
    return InvalidOperand(instruction=function, operand=operand, found=describe(found), expected=expected)
