"""`python -m nkilite topologies`: how the chips of ranks may be joined, and how long collectives take there."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from nkilite.cli.terminal import terminal
from nkilite.machine.communication import World, all_gather, all_reduce, all_to_all, reduce_scatter
from nkilite.machine.target import TARGETS, get_target
from nkilite.machine.topology import Level, Topology
from nkilite.machine.topology_files import get_topology
from nkilite.machine.topology_files import topologies as shipped
from nkilite.profiling.communication import require_room
from nkilite.profiling.text import size_text, time_text

_WIDTH = 120  # columns of the tables in logs, which have no width of their own
_SIZES = tuple(1 << n for n in range(10, 31, 2))


def topologies(
    topology: Annotated[str | None, typer.Argument(help="One to show the collectives of, or a file mine.toml.")] = None,
    ranks: Annotated[int, typer.Option(help="That communicate, from 0 on; 0 for all of an instance.", min=0)] = 0,
    cores: Annotated[int, typer.Option(help="Of a rank.", min=1, max=2)] = 2,
    target: Annotated[str, typer.Option(help="The chip; by default the oldest of the product.")] = "",
) -> None:
    """List the topologies, or show how long collectives take on one. All times are modelled."""
    console = terminal(_WIDTH)
    if topology is None:
        table = Table("topology", "device", "chips", "levels, from the chips outwards")
        for found in shipped().values():
            levels = "; ".join(map(_described, found.levels))
            table.add_row(found.name, found.device, str(found.chips or "any"), levels)
        console.print(table)
        console.print("A file of your own: nkilite/machine/topologies/trn2-48xlarge.toml describes the fields.")
        return
    chosen = get_topology(topology)
    chip = get_target(target or next((t.name for t in TARGETS.values() if t.device == chosen.device), "trn2"))
    cores = min(cores, chip.max_logical_core_size)
    count = ranks or (chosen.levels[0].size or 1) * chip.cores_per_device // cores
    world = World.of(chosen, count, chip, cores)
    require_room(world, chip, cores)
    console.print(_times(chosen, world, cores))


def _described(level: Level) -> str:
    shape = "x".join(map(str, level.shape)) if level.size else "any number"
    of = "chip" if level.kind == "switch" else "link"
    hop = f"{level.hop_ns / 1000:g} us a hop"
    return f"{level.name} ({level.kind} of {shape}, {level.bytes_per_ns:g} GB/s a {of}, {hop})"


def _times(topology: Topology, world: World, cores: int) -> Table:
    """Collectives of all ranks, by the bytes that a rank has in all."""
    title = f"{world.ranks} ranks of {cores} core(s) on {topology.name}: collectives (modelled)"
    table = Table("size", title=title, title_justify="left")
    functions = (all_reduce, all_gather, reduce_scatter, all_to_all)
    for function in functions:
        table.add_column(function.__name__, justify="right")
    for size in _SIZES:
        found = [function(world, range(world.ranks), size) for function in functions]
        table.add_row(size_text(size), *(f"{t.algorithm} {time_text(t.ns / 1000)}" for t in found))
    return table
