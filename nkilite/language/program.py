"""Which of the cores of a launch runs this program. `kernel[2]` has one program for each of two cores.

Source: public pages nki.language.program_id, num_programs and program_ndim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from nkilite.errors import InvalidOperand, describe
from nkilite.ir.meeting import ALONE, Core
from nkilite.trace import active

__all__ = ["no_reorder", "num_programs", "program_id", "program_ndim"]


def _core() -> Core:
    builder = active.builder_or_none()
    return ALONE if builder is None else builder.core


def program_id(axis: int = 0) -> int:
    """The index of this program along an axis of the launch grid: the number of its core; 0 along other axes.

    Raises:
        InvalidOperand: the axis is no int.
    """
    return _core().number if _axis("nl.program_id", "axis", axis) == 0 else 0


def num_programs(axes: int | Sequence[int] | None = 0) -> int:
    """The number of programs along the axes of the launch grid, or of all: the cores of the launch.

    Raises:
        InvalidOperand: an axis is no int.
    """
    along = (0,) if axes is None else axes if isinstance(axes, (tuple, list)) else (axes,)
    return _core().cores if 0 in [_axis("nl.num_programs", "axes", axis) for axis in along] else 1


def _axis(function: str, parameter: str, axis: object) -> int:
    if not isinstance(axis, (int, np.integer)):
        raise InvalidOperand(instruction=function, operand=parameter, found=describe(axis), expected="an int")
    return int(axis)


def program_ndim() -> int:
    """The number of axes of the launch grid: 0 if there is none, else 1."""
    return _core().axes


@contextmanager
def no_reorder() -> Iterator[None]:
    """Keep the instructions of a `with` block in program order.

    nkilite executes in program order everywhere; the block matters to the timing model, in which each of its
    instructions waits for the one before it.
    """
    program = active.builder("nl.no_reorder").program
    first = program.count
    yield
    program.dependencies += [(i, i - 1) for i in range(first + 1, program.count)]
