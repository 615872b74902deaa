"""`nl.all_reduce`: a tile combined over instances of a launch grid. Source: nki.language.all_reduce of Beta 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nkilite import dtypes
from nkilite.beta1.functional import dtype_or, on_chip
from nkilite.beta1.grid import instances
from nkilite.beta1.isa.elementwise import tensor_tensor
from nkilite.beta1.keywords import public
from nkilite.beta1.mask import MaskLike
from nkilite.beta1.memory import copy
from nkilite.beta1.tile import Tile
from nkilite.dtypes import DType, DTypeLike
from nkilite.errors import InstancesDiffer, InvalidOperand, describe
from nkilite.isa.operators import Op


class _Part(NamedTuple):
    """What an instance comes with."""

    tile: Tile
    op: Op
    axes: tuple[int, ...]
    dtype: DType
    mask: MaskLike


@public
def all_reduce(
    x: object, op: Op, program_axes: object, dtype: DTypeLike | None = None, mask: MaskLike = None
) -> Tile:
    """`x` combined over the instances of the launch that differ along axes of the grid; all of them get the result.

    They are combined in the order of the instances, in float32 if `x` is a float, and rounded once.

    Args:
        x: a tile.
        op: the operator that combines, such as np.add.
        program_axes: axes of the launch grid. Of a grid of one axis `nl.program_id(0)` stands for it, too, as kernels
            write it.
        dtype: of the result; by default that of `x`.

    Raises:
        InvalidOperand: something is no axis of the grid.
        InstancesDiffer: other instances do not call it in the same way.
    """
    x = on_chip(x, "x", "nl.all_reduce")
    found = instances()
    grid = () if found is None else found.grid
    part = _Part(x, op, _axes(program_axes, grid), dtype_or(dtype, x.dtype, "nl.all_reduce"), mask)
    if found is None or not grid:
        return _combined([part])[0]
    positions = found.positions
    return found.meet(part, lambda parts: _by_group(parts, positions))


def _axes(given: object, grid: tuple[int, ...]) -> tuple[int, ...]:
    axes = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    if len(grid) < 2 and len(axes) == 1 and isinstance(axes[0], int):
        return tuple(range(len(grid)))
    for axis in axes:
        if isinstance(axis, bool) or not isinstance(axis, int) or not 0 <= axis < len(grid):
            raise InvalidOperand(
                instruction="nl.all_reduce", operand="program_axes", found=describe(given),
                expected=f"axes of the launch grid {grid}",
            )
    return tuple(sorted(set(axes)))


def _by_group(parts: Sequence[_Part], positions: Sequence[tuple[int, ...]]) -> list[Tile]:
    """The results of all instances, of which those that are equal along the other axes belong together."""
    first = parts[0]
    for number, part in enumerate(parts):
        for what, one, other in (
            ("program_axes", first.axes, part.axes), ("tiles of shape", first.tile.shape, part.tile.shape),
        ):
            if one != other:
                raise InstancesDiffer(problem=f"instance 0 has {what} {one}, and instance {number} {other}")
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, position in enumerate(positions):
        key = tuple(p for axis, p in enumerate(position) if axis not in first.axes)
        groups.setdefault(key, []).append(number)
    results: dict[int, Tile] = {}
    for members in groups.values():
        results.update(zip(members, _combined([parts[m] for m in members]), strict=True))
    return [results[number] for number in range(len(parts))]


def _combined(parts: Sequence[_Part]) -> list[Tile]:
    """A tile with the result for each of a group."""
    first, *others = parts
    total, kind = first.tile, first.dtype
    between = dtypes.float32 if total.dtype.is_float else total.dtype
    for number, part in enumerate(others, 1):
        total = tensor_tensor(
            total, part.tile, first.op, dtype=kind if number == len(others) else between, mask=first.mask
        )
    rest = [copy(total, mask=first.mask, dtype=kind) for _ in (others or parts)]
    return [total, *rest] if others else rest
