"""`python -m nkilite targets`: the chips a kernel can be checked against and timed on."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer
from rich.table import Table

from nkilite.cli.terminal import say, terminal
from nkilite.machine.target import TARGETS, Target, get_target

HELP = f"{', '.join(TARGETS)}, or a file mychip.toml."  # for options that name a target
_WIDTH = 100  # columns of the table in logs, which have no width of their own


def targets(
    target: Annotated[str | None, typer.Argument(help=f"One to show in full: {HELP}")] = None,
) -> None:
    """List the targets, or show every field of one, in the form of a target file."""
    if target is not None:
        for line in _described(get_target(target)):
            say(line)
        return
    table = Table("target", "also", "device", "core", "SBUF", "HBM per core", "bf16 peak", "calibrated")
    for chip in TARGETS.values():
        table.add_row(
            chip.name, ", ".join(chip.aliases), chip.device, f"v{chip.generation}",
            f"{chip.sbuf_size_bytes >> 20} MiB", f"{chip.hbm_bytes_per_ns:g} GB/s",
            f"{chip.matmul_flops_per_ns('bfloat16') / 1000:.0f} TFLOP/s", "yes" if chip.calibrated else "no",
        )
    console = terminal(_WIDTH)
    console.print(table)
    console.print("A file inherits from one of them: docs/targets.md.")


def _described(chip: Target) -> list[str]:
    """The fields of a target as lines of TOML."""
    return [f"{field.name} = {_toml(getattr(chip, field.name))}" for field in fields(chip)]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, (frozenset, tuple)):
        return "[" + ", ".join(map(_toml, sorted(value))) + "]"
    return repr(value)
