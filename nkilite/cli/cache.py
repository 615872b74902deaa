"""`python -m nkilite cache`: look at the disk cache of compiled kernels, and empty it."""

from __future__ import annotations

import time
from collections import defaultdict

import typer
from rich.table import Table

from nkilite import knobs
from nkilite.cli.terminal import say, terminal
from nkilite.native.cache import KERNELS, NO_HOME, OBJECTS, OPERATORS, Entry, Store

app = typer.Typer(no_args_is_help=True, help="The disk cache of compiled kernels.")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@app.command()
def info() -> None:
    """Where the cache is, how much it may hold, and what is in it."""
    shelves: dict[str, list[Entry]] = defaultdict(list)
    directory = knobs.cache_directory()
    for entry in Store(directory).entries() if directory is not None else ():
        shelves[entry.shelf].append(entry)
    kernels, objects, operators = shelves[KERNELS], shelves[OBJECTS], shelves[OPERATORS]
    total = _size(sum(e.bytes for e in (*kernels, *objects, *operators)))
    summary = {
        "location": directory or f"none: {NO_HOME}",
        "used": "yes" if knobs.cache_enabled() else "no (NKILITE_CACHE=0)",
        "size": f"{total} of {_size(knobs.cache_bytes())}",
        "compiled programs": f"{len(kernels):,} ({_size(sum(e.bytes for e in kernels))})",
        "object code": _size(sum(e.bytes for e in objects)),
        "C++ operators": f"{len(operators):,} ({_size(sum(e.bytes for e in operators))})",
    }
    for name, value in summary.items():
        say(f"{name:<21}{value}")
    if not kernels:
        return
    table = Table("kernel", "programs", "bytes", "last used")
    named: dict[str, list[Entry]] = defaultdict(list)
    for entry in kernels:
        named[entry.label].append(entry)
    for name, entries in sorted(named.items()):
        last = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(e.used for e in entries)))
        table.add_row(name, f"{len(entries):,}", _size(sum(e.bytes for e in entries)), last)
    terminal().print(table)


@app.command()
def clear() -> None:
    """Remove everything from the cache; running processes keep what they have loaded."""
    directory = knobs.cache_directory()
    count, size = (0, 0) if directory is None else Store(directory).clear()
    say(f"removed {count:,} entries, {_size(size)}")


def _size(size: float) -> str:
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} B"
