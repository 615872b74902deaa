"""`python -m nkilite opt`: run passes on the text of a program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

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
_OF_INSTRUCTIONS = {*_OF_PROGRAMS, *(kind.__name__ for kind in passes_of_schedules.NEEDED)}
_PASSES = [*_OF_PROGRAMS, *_OF_SCHEDULES]


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
    schedule = parse_schedule(text)
    verify_schedule(schedule)
    for name in chosen:
        if schedule.decided and name in _OF_INSTRUCTIONS:
            raise typer.BadParameter(f"{name} changes instructions of which a schedule is made", param_hint="--pass")
        if name in _OF_SCHEDULES:
            schedule = _OF_SCHEDULES[name]().run(schedule)
        else:
            schedule = Schedule(_OF_PROGRAMS[name]().run(schedule.program))
        verify_schedule(schedule, after=name)
    say(print_schedule(schedule).rstrip())
