"""Which of the cores of a launch runs this program. A launch has one core, so there is no grid.

Source: public pages nki.language.program_id, num_programs and program_ndim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nkilite.trace import active

__all__ = ["no_reorder", "num_programs", "program_id", "program_ndim"]


def program_id(axis: int = 0) -> int:
    """The index of this program along an axis of the launch grid: 0."""
    return 0


def num_programs(axes: int | Sequence[int] = 0) -> int:
    """The number of programs along the axes of the launch grid: 1."""
    return 1


def program_ndim() -> int:
    """The number of axes of the launch grid: 0, for there is none."""
    return 0


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
