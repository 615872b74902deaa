"""Loops of Beta 1, which unroll, and `nl.loop_reduce`.

Source: nki.language.affine_range, sequential_range, static_range, loop_reduce.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import SupportsInt, cast

import numpy as np

from nkilite import isa as nisa
from nkilite.beta1 import functional
from nkilite.beta1.functional import Absent, allocated, dtype_or, on_chip
from nkilite.beta1.index import LoopIndex
from nkilite.beta1.keywords import check, public
from nkilite.beta1.mask import Mask, MaskLike
from nkilite.beta1.operators import operator
from nkilite.beta1.tile import Tile, tile
from nkilite.dtypes import DTypeLike
from nkilite.errors import InvalidOperand, describe
from nkilite.isa.operators import Op
from nkilite.trace import active


class Loop:
    """One run of a loop.

    Attributes:
        variable: its loop variable now.
    """

    __slots__ = ("variable",)

    variable: LoopIndex


def _running() -> list[Loop]:
    """The loops that run now, outermost first."""
    builder = active.current.builder
    if builder is None:
        return []
    constants: dict[str, list[Loop]] = builder.constants  # type: ignore[assignment]
    return constants.setdefault("loops", [])


class _Variables(dict[int, LoopIndex]):
    """Loop variables by their value, made once: those of loops in one another are told apart by identity."""

    def __missing__(self, number: int) -> LoopIndex:
        if len(self) >= _MOST:
            self.clear()
        self[number] = made = LoopIndex(number)
        return made


_BOUNDS = ("start", "stop", "step")
_MOST = 1 << 16
_variables: list[_Variables] = []  # by depth of the loops


def _variables_at(depth: int) -> _Variables:
    while len(_variables) <= depth:
        _variables.append(_Variables())
    return _variables[depth]


class Range:
    """`nl.affine_range(...)` and its relatives: a range whose ints know their loop."""

    __slots__ = ("_affine", "_range")

    def __init__(self, *bounds: object, name: str) -> None:
        for bound in bounds:
            if isinstance(bound, bool) or not isinstance(bound, (int, np.integer)):
                raise InvalidOperand(
                    instruction=f"nl.{name}", operand="a bound", found=describe(bound), expected="an int",
                    fix="use // instead of / to compute it" if isinstance(bound, float) else "",
                )
        self._range = range(*map(int, cast("tuple[int, ...]", bounds)))
        self._affine = name == "affine_range"

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, position: int) -> int:
        return self._range[position]

    def __iter__(self) -> Iterator[int]:
        loop, running = Loop(), _running()
        depth = len(running)
        builder = active.current.builder
        program = builder.program if builder is not None else None
        begins = []
        variables = _variables_at(depth)
        try:
            for number in self._range:
                loop.variable = found = variables[number]
                if len(running) != depth + 1 or running[depth] is not loop:
                    running[depth:] = (loop,)  # loops inside that were left by break or return end with it
                if program is not None:
                    begins.append(program.count)
                yield found
            if program is not None and begins and program.managed:
                program.affine.append([*(begins if self._affine else begins[:1]), program.count])
        finally:
            del running[depth:]


def affine_range(*bounds: object, **named: object) -> Range:
    """A loop whose iterations do not depend on each other; it unrolls. Bounds are as of `range`, or named so."""
    return Range(*_ordered("nl.affine_range", bounds, named), name="affine_range")


def sequential_range(*bounds: object, **named: object) -> Range:
    """A loop whose iterations may depend on each other; it unrolls. Bounds are as of `range`, or named so."""
    return Range(*_ordered("nl.sequential_range", bounds, named), name="sequential_range")


def static_range(*bounds: object, **named: object) -> Range:
    """A loop that unrolls. Bounds are as of `range`, or named so."""
    ordered = _ordered("nl.static_range", bounds, named)
    return Range(*(b if b is None else int(cast(SupportsInt, b)) for b in ordered), name="static_range")


def _ordered(name: str, bounds: Sequence[object], named: Mapping[str, object]) -> Sequence[object]:
    """Bounds in the order of `range`, whether they have names or not. Raises UnknownKeyword."""
    if not named:
        return bounds
    check(name, _BOUNDS, named)
    given = {name: named[name] for name in _BOUNDS if name in named}
    names = _BOUNDS if len(bounds) > 1 or "stop" in given else ("stop",)
    given.update(zip(names, bounds, strict=False))
    return [given.get("start", 0), given.get("stop"), given.get("step", 1)]


@public
def loop_reduce(
    x: object, op: Op, loop_indices: Sequence[object], dtype: DTypeLike | None = None, mask: MaskLike = None
) -> Tile:
    """`x` combined over the iterations of loops; what it returns in the last iteration is the result.

    Args:
        x: a tile computed in the loops.
        op: the operator that combines, such as np.add.
        loop_indices: the variables of the loops.
    """
    x = on_chip(x, "x", "nl.loop_reduce")
    running = _running()
    reduced = []
    for position in loop_indices:
        loop = next((one for one in running if one.variable is position), None)
        if loop is None:
            raise InvalidOperand(
                instruction="nl.loop_reduce", operand="loop_indices", found=describe(position),
                expected="variables of nl.affine_range or nl.sequential_range loops that it is in",
            )
        reduced.append(loop)
    builder = active.builder("nl.loop_reduce")
    key = ("loop_reduce", *_place(), *_iteration(reduced))
    total = builder.constants.get(key)
    if mask is not None and not isinstance(mask, Mask) and functional.is_false(mask):
        return tile(total) if total is not None else Absent(x.shape, x.dtype, functional.SBUF)
    if total is None:
        kind = dtype_or(dtype, x.dtype, "nl.loop_reduce")
        total = builder.constants[key] = allocated(x.shape, kind)
        nisa.tensor_copy(total, x.nki)
    else:
        nisa.tensor_tensor(total, total, x.nki, operator(op))
    return tile(total)


def _place() -> tuple[int, ...]:
    """The calls that led to nl.loop_reduce, which a helper may hold for several of them."""
    frame, found = sys._getframe(2), []
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("nkilite."):
            found += [id(frame.f_code), frame.f_lasti]
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


def _iteration(reduced: list[Loop]) -> tuple[object, ...]:
    """What tells sums apart: the run of the outermost loop that is summed over, and where loops inside it are that
    are not. Inner loops begin again in each of its iterations."""
    running = _running()
    outermost = next((depth for depth, loop in enumerate(running) if loop in reduced), len(running))
    inside = [int(loop.variable) for loop in running[outermost:] if loop not in reduced]
    return (running[outermost] if outermost < len(running) else None, *inside)
