"""Make a program that goes wrong as short as it can be."""

from __future__ import annotations

from collections.abc import Callable

from .program import Program


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Leave out steps, results and shared arguments as long as the program still fails."""
    for same in ((0, 1, 2), program.same):
        if fails(program._replace(same=same)):
            program = program._replace(same=same)
            break
    stored = _fewer(program.stored, lambda stored: fails(program._replace(stored=tuple(stored))))
    program = program._replace(stored=stored)
    return program._replace(steps=_fewer(program.steps, lambda steps: fails(program._replace(steps=tuple(steps)))))


def _fewer(items: tuple, fails: Callable[[list], bool]) -> tuple:
    """As few of the items as still fail, leaving out many at once first."""
    kept = list(items)
    size = max(len(kept) // 2, 1)
    while size:
        at = len(kept)
        while at > 0:
            at -= size
            fewer = kept[: max(at, 0)] + kept[at + size :]
            if len(fewer) < len(kept) and fails(fewer):
                kept = fewer
        size //= 2
    return tuple(kept)
