"""`python -m nkilite compile`: compile a kernel and look at any stage of it."""

from __future__ import annotations

import os
import time
from enum import Enum
from typing import Annotated

import typer
from rich.table import Table

from nkilite import knobs
from nkilite.cli.specs import load_kernel, parse_arguments
from nkilite.cli.targets import HELP
from nkilite.cli.terminal import say, terminal
from nkilite.host.cpu import host
from nkilite.ir.printer import print_program
from nkilite.ir.program import Program
from nkilite.native.compile import compile_program
from nkilite.native.library import assembly, module_text
from nkilite.passes import pipeline as passes
from nkilite.runtime.kernel import Kernel
from nkilite.schedule import pipeline as schedule
from nkilite.schedule.printer import print_schedule
from nkilite.schedule.schedule import Schedule


class Stage(str, Enum):
    """What `--dump` shows."""

    trace = "trace"
    passes = "passes"
    final = "final"
    llvm = "llvm"
    asm = "asm"


def compile(
    kernel: Annotated[str, typer.Argument(help="MODULE:KERNEL or FILE.py:KERNEL, on two cores KERNEL[2]")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Arguments: 128x512:float32, x=128x512:bf16, causal=True ...")
    ] = None,
    dump: Annotated[
        Stage | None,
        typer.Option(help="trace: IR as traced; passes: IR after each pass; final: IR after the last; llvm; asm."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--pass", help="With --dump passes: only before and after this pass.")
    ] = None,
    times: Annotated[
        bool, typer.Option("--time", help="Print the time of every stage, and run the kernel twice.")
    ] = False,
    target: Annotated[str | None, typer.Option(help=HELP)] = None,
) -> None:
    """Trace and compile a kernel; dump the IR, LLVM IR or assembly; time the stages."""
    knobs.use_target(target)
    os.environ["NKILITE_CACHE"] = "0"  # every stage is to be seen at work
    found = load_kernel(kernel)
    positional, named = parse_arguments(arguments or [])
    if dump is None or times:
        _summarize(found, positional, named, times)
        if dump is None:
            return
    program = found.trace(*positional, **named)
    if dump is Stage.trace:
        say(print_program(program).rstrip())
        return
    if dump is Stage.passes:
        _dump_passes(program, only)
        return
    compiled = compile_program(program)
    if dump is Stage.final:
        say(print_schedule(compiled.schedule).rstrip())
    elif dump is Stage.llvm:
        say(module_text(compiled.lowered.sources))
    else:
        say(assembly(compiled.lowered.sources, compiled.host))


def _dump_passes(program: Program, only: str | None) -> None:
    names = [p.__name__ for p in (*passes.PIPELINE, *schedule.PIPELINE)]
    if only is not None and only not in names:
        raise typer.BadParameter(f"no pass {only!r}; passes: {', '.join(names)}", param_hint="--pass")
    before = print_program(program)
    if only is None:
        say(f"// as traced\n{before}")

    def show(name: str, after: Program | Schedule) -> None:
        nonlocal before
        text = print_schedule(after) if isinstance(after, Schedule) else print_program(after)
        if only == name:
            say(f"// before {name}\n{before}")
        if only in (None, name):
            say(f"// after {name}\n{text}")
        before = text

    compile_program(program, observe=show)


def _summarize(found: Kernel[...], positional: list[object], named: dict[str, object], times: bool) -> None:
    console = terminal()
    compiled = found.compile(*positional, **named)
    program = compiled.program
    console.print(
        f"{program.name}: {len(program):,} instructions, {len(program.signatures)} signatures, "
        f"{len(compiled.lowered.sources)} micro-kernels for {host().level}, target {program.target.name}"
    )
    if not times:
        return
    table = Table("stage", "seconds (cpu-measured)")
    for name, seconds in compiled.seconds.items():
        table.add_row(name, f"{seconds:.4f}")
    for name in ("first run", "second run"):
        started = time.perf_counter()
        found(*positional, **named)
        table.add_row(name, f"{time.perf_counter() - started:.4f}")
    console.print(table)
