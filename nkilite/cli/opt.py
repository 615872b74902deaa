"""`python -m nkilite opt`: run passes on the text of a program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nkilite.cli.specs import CommandLineError
from nkilite.cli.terminal import say
from nkilite.machine.target import get_target
from nkilite.passes import pipeline as passes_of_programs
from nkilite.schedule import pipeline as passes_of_schedules
from nkilite.schedule.parser import parse_schedule
from nkilite.schedule.printer import print_schedule
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.verifier import verify_schedule

_OF_PROGRAMS = {kind.__name__: kind for kind in passes_of_programs.PIPELINE}
_OF_SCHEDULES = {kind.__name__: kind for kind in passes_of_schedules.PIPELINE}
_PASSES = [*_OF_PROGRAMS, *_OF_SCHEDULES]
_UNSCHEDULED = {*_OF_PROGRAMS, *(kind.__name__ for kind in passes_of_schedules.NEEDED)}
_UNGROUPED = {kind.__name__ for kind in passes_of_schedules.UNGROUPED}


class PassTooLate(CommandLineError):
    template = "pass {name} comes before what line {line} of the program{after} says: {said!r}."
    remedy = "run it once, on a text without such lines; --pass repeated runs several, in the order {order}."


def opt(
    file: Annotated[str, typer.Argument(help="A program as `nkilite compile --dump` prints it; - is the input.")],
    passes: Annotated[
        list[str] | None, typer.Option("--pass", help="A pass; several run in the order given, and none means all.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The file of the program's target, where it is not one that comes with nkilite.")
    ] = None,
) -> None:
    """Run passes on a program, or on its schedule, verify it after each, and print it."""
    chosen = _PASSES if passes is None else passes
    for name in chosen:
        if name not in _PASSES:
            raise typer.BadParameter(f"no pass {name!r}; passes: {', '.join(_PASSES)}", param_hint="--pass")
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {file}: {error}", param_hint="FILE") from None
    if target is not None:
        get_target(target)  # from here on its name is known
    schedule, after = parse_schedule(text), ""
    verify_schedule(schedule)
    for name in chosen:
        _require_in_time(name, text, after)
        if name in _OF_SCHEDULES:
            schedule = _OF_SCHEDULES[name]().run(schedule)
        else:
            schedule = Schedule(_OF_PROGRAMS[name]().run(schedule.program))
        verify_schedule(schedule, after=name)
        text, after = print_schedule(schedule), f" after {name}"
    say(text.rstrip())


def _require_in_time(name: str, text: str, after: str) -> None:
    """Raise PassTooLate if the text says what comes after a pass; `after` names what has made it."""
    later = ("layout ", "group ") if name in _UNSCHEDULED else ("group ",) if name in _UNGROUPED else ()
    for number, line in enumerate(text.splitlines(), 1):
        said = line.strip()
        if said.startswith(later):
            raise PassTooLate(name=name, line=number, after=after, said=said, order=", ".join(_PASSES))
