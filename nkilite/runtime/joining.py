"""The programs of a launch's cores become one launch: shared tensors matched, results the same, meetings met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nkilite.errors import CoresDiffer, InvalidReturn
from nkilite.ir.meeting import there
from nkilite.ir.program import Program
from nkilite.ir.rendezvous import require_same_meetings
from nkilite.location import Location
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.results import results_of
from nkilite.trace import shared
from nkilite.trace.tensor import NkiTensor


def join(programs: Sequence[Program], returned: Sequence[Any], kernel: str, location: Location) -> None:
    """Make the shared tensors of all cores the outputs of their programs, in one order.

    So a launch gives every core the same memory for them, whether the kernel returns them or not.

    Raises:
        CoresDiffer: the cores do not make or return the same.
        CoresDiffer, Deadlock: a core waits where the others do not come.
        InvalidReturn: what is returned belongs to one core.
    """
    if len(programs) == 1:
        return
    matched = shared.match(programs)
    for program, buffers in zip(programs, matched, strict=True):
        for buffer in program.outputs:
            if buffer not in buffers:
                raise InvalidReturn(
                    kernel=kernel, what=f"a tensor in {str(buffer.region).upper()} that one core alone has",
                    fix="return tensors with buffer=nl.shared_hbm that both cores make", location=buffer.location,
                )
        program.outputs = buffers
    require_same_meetings(programs)
    results = [results_of(value, program) for value, program in zip(returned, programs, strict=True)]
    for core, result in enumerate(results):
        if result != results[0]:
            first, second = returned[0], returned[core]
            raise CoresDiffer(
                what="return different results", core=0, first=_said(first), other=core, second=_said(second),
                there=there(_made(second, location)), location=_made(first, location),
            )


def _made(returned: Any, kernel: Location) -> Location:
    """Where the first tensor in what a core returns was made."""
    found: list[Location] = []
    map_leaves(returned, lambda v, _: found.append(v.storage.location) if isinstance(v, NkiTensor) else None)
    return found[0] if found else kernel


def _said(returned: Any) -> str:
    shown = map_leaves(returned, lambda v, _: f"{v.dtype} {list(v.shape)}" if isinstance(v, NkiTensor) else v)
    return shown if isinstance(shown, str) else repr(shown)
