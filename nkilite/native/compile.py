"""From a traced Program to an Executable, with the time of every stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nkilite.host.cpu import Host, host
from nkilite.ir.program import Program
from nkilite.native import effort
from nkilite.native import functions as functions  # for the passes
from nkilite.native.executable import Executable
from nkilite.native.image import Image, image_of
from nkilite.native.lower import Lowered, lower
from nkilite.native.lower_quickly import lower_quickly
from nkilite.schedule.pipeline import Observer, improved, prepared, scheduled
from nkilite.schedule.place import place
from nkilite.schedule.schedule import Schedule


@dataclass(repr=False)
class Compilation:
    """The products of compiling a program.

    Attributes:
        seconds: cpu-measured time per stage.
        hasty: instructions run one after another, with micro-kernels that are there already.
    """

    schedule: Schedule
    lowered: Lowered
    executable: Executable
    host: Host
    seconds: dict[str, float] = field(default_factory=dict)
    hasty: bool = False

    @property
    def program(self) -> Program:
        """The program as passes left it."""
        return self.schedule.program

    def __repr__(self) -> str:
        return f"<nki compilation of {self.program.name} for {self.host.level}: {sum(self.seconds.values()):.3f} s>"


def compile_program(program: Program, observe: Observer | None = None, hurry: bool = False) -> Compilation:
    """Run the passes, write the micro-kernels and make them executable on this host.

    Args:
        hurry: what does little work may be compiled hastily, to be `improve`d later.
    """
    return _compile(lambda: prepared(program, observe), observe, hurry)


def improve(hasty: Compilation) -> Compilation:
    """Go on with what was compiled hastily: decide how it runs fast. The schedule becomes another one."""
    return _compile(lambda: hasty.schedule)


def _compile(
    prepare: Callable[[], Schedule], observe: Observer | None = None, hurry: bool = False
) -> Compilation:
    seconds: dict[str, float] = {}
    level = host()
    started = time.perf_counter()

    def stage(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[name] = now - started
        started = now

    schedule = prepare()
    hasty = hurry and effort.little(schedule.program, level.products)
    if not hasty:
        schedule = improved(schedule, observe)
    stage("passes")
    placement = place(schedule, level.products)
    stage("place")
    lowered = (lower_quickly if hasty else lower)(schedule, placement, level)
    stage("lower")
    executable = Executable(image_of(schedule.program, placement, lowered, level.level, hasty), level)
    stage("native code")
    schedule.program.derived.clear()
    return Compilation(schedule, lowered, executable, level, seconds, hasty)


def image_for(program: Program, level: Host) -> Image:
    """The image of a program, with the text of its micro-kernels; nothing is compiled to native code."""
    schedule = scheduled(program)
    placement = place(schedule, level.products)
    return image_of(schedule.program, placement, lower(schedule, placement, level), level.level)
