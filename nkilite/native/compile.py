"""From a traced Program to an Executable, with the time of every stage."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from nkilite.codegen.host import Host, host
from nkilite.ir.program import Program
from nkilite.native.executable import Executable
from nkilite.native.image import Image, image_of
from nkilite.native.lower import Lowered, lower
from nkilite.passes.pipeline import Observer, run_pipeline
from nkilite.passes.place import place


@dataclass(repr=False)
class Compilation:
    """The products of compiling a program.

    Attributes:
        seconds: cpu-measured time per stage.
    """

    program: Program
    lowered: Lowered
    executable: Executable
    host: Host
    seconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<nki compilation of {self.program.name} for {self.host.level}: {sum(self.seconds.values()):.3f} s>"


def compile_program(program: Program, observe: Observer | None = None) -> Compilation:
    """Run the passes, write the micro-kernels and make them executable on this host."""
    seconds: dict[str, float] = {}
    level = host()
    started = time.perf_counter()

    def stage(name: str) -> None:
        nonlocal started
        now = time.perf_counter()
        seconds[name] = now - started
        started = now

    program = run_pipeline(program, observe)
    stage("passes")
    placement = place(program, level.amx_bf16)
    stage("place")
    lowered = lower(program, placement, level)
    stage("lower")
    executable = Executable(image_of(program, placement, lowered, level.level), level)
    stage("native code")
    program.derived.clear()
    return Compilation(program, lowered, executable, level, seconds)


def image_for(program: Program, level: Host) -> Image:
    """The image of a program, with the text of its micro-kernels; nothing is compiled to native code."""
    program = run_pipeline(program)
    placement = place(program, level.amx_bf16)
    return image_of(program, placement, lower(program, placement, level), level.level)
