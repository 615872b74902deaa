"""`kernel.with_schedule(edges)`: dependencies between named instructions, stated from outside the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nkilite.errors import InvalidSchedule
from nkilite.ir.program import Program

Schedule = tuple[tuple[str, tuple[str, ...]], ...]


def as_schedule(edges: Iterable[object], kernel: str) -> Schedule:
    """Edges in one form: (name, names that come before it).

    Raises:
        InvalidSchedule: an entry is not a pair of a name and a name or list of names.
    """
    found = []
    for edge in edges:
        if not isinstance(edge, Sequence) or isinstance(edge, str) or len(edge) != 2:
            raise InvalidSchedule(kernel=kernel, problem=f"{edge!r} is not a pair")
        name, before = edge
        names = tuple(before) if isinstance(before, (list, tuple)) else (before,)
        if not all(isinstance(n, str) for n in (name, *names)):
            raise InvalidSchedule(kernel=kernel, problem=f"{edge!r} holds something that is not a name")
        found.append((name, names))
    return tuple(found)


def apply_schedule(program: Program, schedule: Schedule) -> None:
    """Add the dependencies to a traced program; they guide the timing model, for the CPU keeps program order anyway.

    Raises:
        InvalidSchedule: a name no instruction has, or an instruction that comes before its producer.
    """
    if not schedule:
        return
    at: dict[str, list[int]] = {}
    for index, name in program.names.items():
        at.setdefault(name, []).append(index)

    def instructions(name: str) -> list[int]:
        if name not in at:
            known = ", ".join(sorted(at)) or "none"
            raise InvalidSchedule(kernel=program.name, problem=f"no instruction is named {name!r}; names: {known}")
        return at[name]

    for name, producers in schedule:
        for producer in (i for p in producers for i in instructions(p)):
            for consumer in instructions(name):
                if producer >= consumer:
                    problem = f"{program.names[producer]!r} is traced after {name!r}, which is to wait for it"
                    raise InvalidSchedule(kernel=program.name, problem=problem)
                program.dependencies.append((consumer, producer))
