"""The collectives of a launch as the timing model sees them: how long each takes, and what of it nothing hides.

Every rank is taken to run the program that is profiled, and to come to its collectives at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nkilite.errors import RankMissing, TooManyRanks
from nkilite.ir.columns import Columns
from nkilite.ir.definition import Meets
from nkilite.ir.program import Program, Signature
from nkilite.ir.rank import Rank
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.location import Location
from nkilite.machine import communication as costs
from nkilite.machine.communication import Transfer, World
from nkilite.machine.target import Target
from nkilite.machine.topology import Topology
from nkilite.machine.topology_files import get_topology, topologies, topology_for
from nkilite.profiling.joined import Joined

__all__ = ["Collective", "collectives", "require_room", "world_of"]


class Collective(NamedTuple):
    """A collective of a program.

    Attributes:
        kind: the function of nki.collectives.
        group: the ranks that take part with the one that is profiled.
        size: bytes that a rank has in all: what a gather makes, and a reduction is given.
        transfer: by which algorithm, and how long.
    """

    kind: str
    group: tuple[int, ...]
    size: int
    transfer: Transfer


def world_of(launch: Joined, rank: Rank, topology: Topology | str | None) -> World | None:
    """The ranks that a launch communicates with, on the chips of a topology; None if there are no others.

    A rank that is alone is taken for one of as many as its collectives name.

    Raises:
        UnknownTopology, InvalidTopology, NoTopology: there is no such topology.
        TooManyRanks: it has fewer chips.
        RankMissing: a collective names another rank.
    """
    named = [
        (member, ranks, place)
        for call, place in _calls(launch.program) for ranks in [_ranks(call)] for member in ranks
    ]
    if not named:
        return None
    count = rank.count if rank.count > 1 else max(member for member, *_ in named) + 1
    if count == 1:
        return None
    for member, ranks, place in named:
        if member >= count:
            raise RankMissing(rank=member, count=count, group=list(ranks), location=place)
    target, cores = launch.program.target, launch.cores
    chosen = rank.topology if topology is None else topology
    per_chip = target.cores_per_device // cores
    if chosen is None:
        chosen = topology_for(target.device, -(-count // per_chip))
    world = World.of(get_topology(chosen) if isinstance(chosen, str) else chosen, count, target, cores)
    require_room(world, target, cores)
    return world


def require_room(world: World, target: Target, cores: int) -> None:
    """Raise TooManyRanks where a topology has fewer chips than its ranks need."""
    if world.room and world.room < world.ranks:
        larger = [
            t.name for t in topologies().values()
            if t.device == target.device and (not t.chips or t.chips * world.per_chip >= world.ranks)
        ]
        raise TooManyRanks(
            ranks=world.ranks, cores=cores, topology=world.topology.name, room=world.room,
            larger=", ".join(larger) or "a file of your own",
        )


def collectives(launch: Joined, world: World | None, rank: Rank) -> dict[int, Collective]:
    """The collectives, by signature."""
    found = {}
    for call, _ in _calls(launch.program):
        size, group = _size(call, launch.cores), _group(call, rank.number)
        if world is None or len(group) == 1:
            copied = Transfer("copy", 2 * size / (launch.program.target.hbm_bytes_per_ns * launch.cores), 2 * size)
            found[call.id] = Collective(call.kind, group, size, copied)
        else:
            found[call.id] = Collective(call.kind, group, size, _transfer(call, world, group, size))
    return found


def _calls(program: Program) -> Iterator[tuple[Signature, Location]]:
    """The collectives of a program, by signature, each with a line."""
    columns = Columns.of(program)
    for signature, _, starts in columns.uses():
        if signature.definition.meets is Meets.ranks:
            yield signature, program.locations[int(columns.code[starts[0] + 1])]


def _by_pairs(call: Signature) -> bool:
    result: bool = call.kind == "collective_permute"
    return result


def _ranks(call: Signature) -> tuple[int, ...]:
    """All that a call names; a permutation names every rank that receives as one that sends."""
    return tuple(group[0] for group in call.replica_group) if _by_pairs(call) else sum(call.replica_group, ())


def _group(call: Signature, rank: int) -> tuple[int, ...]:
    """Those who take part with a rank; those of the first group if it takes no part."""
    if _by_pairs(call):
        return _ranks(call)
    return next((group for group in call.replica_group if rank in group), call.replica_group[0])


def _size(call: Signature, cores: int) -> int:
    """Bytes; of tensors that each core has for itself, those of all cores."""
    side = "dsts" if "gather" in call.kind or call.kind.endswith("_v") else "srcs"
    kinds = [k for name, k in call.arguments.items() if isinstance(k, ViewType) and name.startswith(side)]
    shared = kinds[0].region is MemoryRegion.shared_hbm
    result: int = sum(kind.size * kind.dtype.itemsize for kind in kinds) * (1 if shared else cores)
    return result


def _transfer(call: Signature, world: World, group: tuple[int, ...], size: int) -> Transfer:
    if _by_pairs(call):
        return costs.permute(world, call.replica_group, size)
    if call.channel_ids is not None:
        if call.op is not None:  # two sources are reduced on the way
            size //= 2
        sizes = [size / len(call.channel_ids)] * len(call.channel_ids)
        return costs.around(world, group, sizes, call.replica_group)
    return _TRANSFERS[call.kind](world, group, size, call.replica_group)


# Those whose counts only the device knows are taken to fill their slots.
_TRANSFERS = {
    "all_reduce": costs.all_reduce, "all_gather": costs.all_gather, "reduce_scatter": costs.reduce_scatter,
    "all_to_all": costs.all_to_all, "all_to_all_v": costs.all_to_all, "all_gather_v": costs.all_gather,
}
