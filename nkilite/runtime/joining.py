"""The programs of a launch's cores become one launch: shared tensors matched, results the same, meetings met."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

from nkilite import knobs
from nkilite.errors import CoresDiffer, DataRace, RaceWarning
from nkilite.ir.meeting import there
from nkilite.ir.program import Program
from nkilite.ir.races import Race, Side, races
from nkilite.ir.rendezvous import require_same_meetings
from nkilite.location import Location
from nkilite.notices import Notice, give
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.results import results_of
from nkilite.trace import shared
from nkilite.trace.tensor import NkiTensor


def join(
    programs: Sequence[Program], returned: Sequence[object], kernel: str, location: Location,
    met: Sequence[Race] = (),
) -> None:
    """Make the shared tensors of all cores the outputs of their programs, in one order.

    So a launch gives every core the same memory for them, whether the kernel returns them or not.

    Args:
        met: races that have been seen while the cores ran.

    Raises:
        CoresDiffer: the cores do not make or return the same.
        CoresDiffer, Deadlock: a core waits where the others do not come.
        DataRace: both touch the same memory between two meetings, and NKILITE_RACES=error.
    """
    if len(programs) == 1:
        return
    matched = shared.match(programs)
    for program, buffers in zip(programs, matched, strict=True):
        program.outputs = buffers
    require_same_meetings(programs)
    _look_for_races(programs, met)
    results = [results_of(value, program) for value, program in zip(returned, programs, strict=True)]
    for core, result in enumerate(results):
        if result != results[0]:
            first, second = returned[0], returned[core]
            raise CoresDiffer(
                what="return different results", core=0, first=_said(first), other=core, second=_said(second),
                there=there(_made(second, location)), location=_made(first, location),
            )


def _look_for_races(programs: Sequence[Program], met: Sequence[Race]) -> None:
    """Warn of races, or refuse them, as NKILITE_RACES says.

    Raises:
        DataRace: there is one, and it is an error.
        InvalidSetting: the variable has another value.
    """
    wanted = knobs.races()
    if wanted == "off":
        return
    for race in islice(chain(races(programs), met), _MOST_RACES):
        one, other = race.one, race.other
        error = DataRace(
            tensor=race.tensor, low=race.low, high=race.high, does=_does(one), other_does=_does(other),
            instruction=one.instruction, other_instruction=other.instruction,
            doubt=_DOUBT if race.open else "", there=there(other.location), location=one.location,
        )
        if wanted == "error":
            raise error
        give(Notice(str(error), RaceWarning, one.location.file, one.location.line))


_MOST_RACES = 20  # reported of a launch
_DOUBT = ", unless they write the same there, which it would take long to find out for so many instructions"


def _does(side: Side) -> str:
    return "writes" if side.writes else "reads"


def _made(returned: object, kernel: Location) -> Location:
    """Where the first tensor in what a core returns was made."""
    found: list[Location] = []
    map_leaves(returned, lambda v, _: found.append(v.storage.location) if isinstance(v, NkiTensor) else None)
    return found[0] if found else kernel


def _said(returned: object) -> str:
    shown = map_leaves(returned, lambda v, _: f"{v.dtype} {list(v.shape)}" if isinstance(v, NkiTensor) else v)
    return shown if isinstance(shown, str) else repr(shown)
