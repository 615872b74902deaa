"""What a profile suggests to change: each finding with its source line and its figure.

A rule looks at one thing, and speaks only when the thing costs a noticeable share of the launch. All figures are
modelled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from nkilite.ir.program import Signature
from nkilite.ir.types import BufferKind, MemoryRegion
from nkilite.location import Location
from nkilite.machine.engine import Engine
from nkilite.profiling.meetings import active_us, barriers, meeting_waits, waiting_us
from nkilite.profiling.overlap import communication, exposed_us
from nkilite.profiling.queues import without_core
from nkilite.profiling.result import Profile, matmul_flops
from nkilite.profiling.summary import hbm_bytes

__all__ = ["Advice", "advise"]

_SHARE = 0.05  # of the launch (or of DMA time) that a finding must concern
_RELOADED = 1.5  # times an input is read before that is worth a word
_LOW_MFU = 0.5


class Advice(NamedTuple):
    """One finding.

    Attributes:
        kind: short name of the rule.
        location: the line it is about; None for the kernel as a whole.
        figure: the number behind it, in words.
        text: what it means and what to try.
        share: of the launch that it concerns, for ranking.
    """

    kind: str
    location: Location | None
    figure: str
    text: str
    share: float

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        return f"{where}{self.kind}: {self.figure}. {self.text}"


def advise(profile: Profile) -> list[Advice]:
    """All findings, the costliest first."""
    uses = _Uses(profile)
    found = [advice for rule in _RULES for advice in rule(profile, uses)]
    return sorted(found, key=lambda a: -a.share)


class _Group(NamedTuple):
    """The instructions of one signature on one line."""

    signature: Signature
    location: Location
    uses: int
    share: float  # of the launch its engine (for DMA, each DMA engine on average) spends on them


class _Uses:
    """Instructions grouped by line and signature."""

    def __init__(self, profile: Profile) -> None:
        where = np.frombuffer(profile.program.code, np.int64)[profile.starts + 1]
        time = np.where(profile.moved_ns > 0, profile.moved_ns, profile.held_ns) / profile.cores
        n = len(profile.program.signatures)
        keys, inverse = np.unique(where * n + profile.ids, return_inverse=True)
        totals, sizes = np.bincount(inverse, time), np.bincount(inverse)
        self.groups = [
            _Group(
                profile.program.signatures[key % n], profile.program.locations[key // n], int(size),
                float(total) / 1000 / profile.latency_us,
            )
            for key, size, total in zip(keys.tolist(), sizes, totals, strict=True)
        ]

    def by_line(self, wanted: Callable[[_Group], bool]) -> list[tuple[Location, list[_Group], float]]:
        """(line, groups, share) of the groups wanted, where a line's share is noticeable."""
        lines: dict[Location, list[_Group]] = defaultdict(list)
        for group in self.groups:
            if wanted(group):
                lines[group.location].append(group)
        shares = [(place, groups, sum(g.share for g in groups)) for place, groups in lines.items()]
        return [entry for entry in shares if entry[2] >= _SHARE]


def _reloads(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Inputs read from HBM more than once."""
    program, code = profile.program, np.frombuffer(profile.program.code, np.int64)
    read: dict[int, int] = defaultdict(int)
    lines: dict[int, Location] = {}
    for number in np.unique(profile.ids).tolist():
        signature = program.signatures[number]
        for operand in signature.operands:
            if not operand.reads or operand.type.region.on_chip:
                continue
            size = hbm_bytes(signature)[0]
            rows = profile.starts[profile.ids == number]
            for buffer, count in zip(*np.unique(code[rows + operand.word], return_counts=True), strict=True):
                read[int(buffer)] += size * int(count)
                lines.setdefault(int(buffer), program.locations[int(code[rows[0] + 1])])
    seen = set()
    for number, size in read.items():
        buffer = program.buffers[number]
        if buffer.name in seen:
            continue  # the same argument on another core
        times = size / max(buffer.size_bytes, 1)
        share = size / max(profile.hbm_bytes, 1) * profile.dma_utilization
        if buffer.kind is BufferKind.input and times >= _RELOADED and share >= _SHARE:
            seen.add(buffer.name)
            yield Advice(
                "input reloaded", lines[number], f"{buffer.label} is read {times:.1f} times from HBM",
                "Load larger blocks, reorder the loops so that a tile serves all who need it while it is on chip, "
                f"or keep it: SBUF peaks at {profile.sbuf_peak_bytes:,} of {profile.target.sbuf_fmax_bytes:,} bytes "
                "per partition.", share,
            )


def _small_transfers(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """DMA with less per partition than amortizes its overhead."""
    least = profile.target.dma_recommended_bytes

    def small(group: _Group) -> bool:
        sides = [o.type for o in group.signature.operands if o.type.region is MemoryRegion.sbuf]
        return _is_dma(profile, group) and bool(sides) and max(s.free_bytes for s in sides) < least

    for place, groups, share in uses.by_line(small):
        size = max(
            o.type.free_bytes for g in groups for o in g.signature.operands if o.type.region is MemoryRegion.sbuf
        )
        yield Advice(
            "small DMA", place, f"{size:,} bytes per partition, below {least:,}",
            "Move several tiles with one instruction: a wider tile, loaded once and sliced.", share,
        )


def _few_partitions(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Instructions that leave lanes idle."""
    full = profile.target.num_partitions

    def narrow(group: _Group) -> bool:
        tiles = [o.type for o in group.signature.operands if o.type.region.on_chip and o.name != "registers"]
        return bool(tiles) and max(t.partitions for t in tiles) < full

    for place, groups, share in uses.by_line(narrow):
        most = max(o.type.partitions for g in groups for o in g.signature.operands if o.type.region.on_chip)
        yield Advice(
            "few partitions", place, f"at most {most} of {full} partitions in use, {share:.0%} of the launch",
            "Lay more of the data along the partition dimension.", share,
        )


def _waiting_for_dma(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """The busiest compute engine idles while data arrives."""
    engines = {k: v.busy_us for k, v in profile.engines.items() if not k.startswith(("DMA", "Collectives"))}
    name = max(engines, key=lambda k: engines[k], default="")
    own = [g for g in profile.gaps if g.queue == name and g.cause >= 0]
    waits = [g for g in own if profile.queue_of(g.cause).startswith("DMA")]
    share = sum(g.length_us for g in waits) / profile.latency_us
    if share >= 2 * _SHARE:
        lines: dict[Location, float] = defaultdict(float)
        for gap in waits:
            lines[profile.location(gap.cause)] += gap.length_us
        place = max(lines, key=lambda k: lines[k])
        yield Advice(
            "waiting for DMA", place, f"{_engine(name)} idle {share:.0%} of the launch for data",
            "Load earlier and into more than one buffer, so that transfers overlap with compute, and load less or in "
            "larger pieces.", share,
        )


def _float32_products(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Matrix products that take four passes."""

    def single(group: _Group) -> bool:
        return matmul_flops(group.signature)[1] == "float32"

    for place, _, share in uses.by_line(single):
        passes = profile.target.fp32_matmul_passes
        yield Advice(
            "float32 matmul", place, f"{share:.0%} of the launch at 1/{passes} of the bfloat16 rate",
            f"Where accuracy allows, convert the operands to bfloat16: products take {share / passes:.0%} then, and "
            "still accumulate in float32.", share * (1 - 1 / passes),
        )


def _short_instructions(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Instructions so short that they take the minimum initiation interval."""
    least = profile.target.min_issue_cycles

    def short(group: _Group) -> bool:
        cost = profile.costs[group.signature.id]
        tiles = [o.type for o in group.signature.operands if o.writes and o.type.region.on_chip]
        lanes = cost.engine in (Engine.vector, Engine.scalar)
        return lanes and cost.cycles <= least and bool(tiles) and max(t.free_size for t in tiles) < least // 2

    for place, groups, share in uses.by_line(short):
        size = max(o.type.free_size for g in groups for o in g.signature.operands if o.writes)
        count = sum(g.uses for g in groups)
        yield Advice(
            "short instructions", place,
            f"{count:,} instructions on {size} elements per partition take the minimum of {least} cycles",
            "Work on several tiles with one instruction, with a free dimension of at least that many elements.", share,
        )


def _bank_conflicts(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """The Tensor Engine waits until somebody has emptied a PSUM bank."""
    lines: dict[Location, float] = defaultdict(float)
    for gap in profile.gaps:
        if without_core(gap.queue) != "Tensor" or gap.cause < 0:
            continue
        reader = profile.program.signatures[int(profile.ids[gap.cause])]
        empties = any(o.reads and not o.writes and o.type.region is MemoryRegion.psum for o in reader.operands)
        written, needed = _buffers(profile, gap.cause)[1], _buffers(profile, gap.instruction)[0]
        if empties and not written & needed:
            lines[profile.location(gap.cause)] += gap.length_us
    bank = profile.target.psum_bank_bytes
    banks = {
        at // bank
        for buffer in profile.program.buffers
        if buffer.region is MemoryRegion.psum and buffer.id in profile.program.addresses
        for first in [profile.program.addresses[buffer.id][1]]
        for at in range(first, first + buffer.partition_bytes, bank)
    }
    for place, waited in lines.items():
        share = waited / profile.latency_us / profile.cores
        if share >= _SHARE:
            yield Advice(
                "PSUM bank conflict", place, f"Tensor Engine idle {share:.0%} of the launch until this has read a bank",
                f"Spread results over more of the {profile.target.psum_banks} banks "
                f"({len(banks)} in use), or empty them on two engines in turn.", share,
            )


def _buffers(profile: Profile, instruction: int) -> tuple[set[int], set[int]]:
    """The buffers an instruction reads, and those it writes."""
    start, code = int(profile.starts[instruction]), profile.program.code
    operands = profile.program.signatures[code[start]].operands
    return ({code[start + o.word] for o in operands if o.reads}, {code[start + o.word] for o in operands if o.writes})


def _low_utilization(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Matrix products far from the peak."""
    if profile.flops and profile.mfu < _LOW_MFU and profile.ideal_tensor_us > _SHARE * profile.latency_us:
        products = [g for g in uses.groups if matmul_flops(g.signature)[0]]
        place = max(products, key=lambda g: g.share).location
        yield Advice(
            "Tensor Engine below peak", place, f"MFU is {profile.mfu:.0%}; {profile.bottleneck} is busy longest",
            "The roofline says whether bytes or another engine stand in the way; see the waits of the Tensor Engine.",
            _LOW_MFU - profile.mfu,
        )


def _overflow(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Tiles that do not fit."""
    if profile.overflow is not None:
        yield Advice(
            "does not fit on chip", profile.overflow.location, str(profile.overflow).splitlines()[0],
            "The times are a lower bound: a compiler would have to spill. Use smaller blocks.", 1.0,
        )
    if profile.spills is not None:
        saved, reloaded, tiles = profile.spills
        where, most = tiles[0]
        yield Advice(
            "spills", where,
            f"{saved / 2**20:.1f} MiB written to HBM and {reloaded / 2**20:.1f} MiB read again for want of SBUF, "
            f"{most / (saved + reloaded):.0%} of them for the tiles of this line",
            "The vendor's compiler would do so, and the times count it. Use smaller blocks, or make tiles nearer to "
            "where they are used.", 1.0,
        )


def _guessed_loops(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Loops of which the model does not know how often they run."""
    for location in dict.fromkeys(profile.guessed):
        yield Advice(
            "loop taken to run once", location, f"{profile.guessed.count(location)} with a runtime trip count",
            "Only the device knows how often it runs: tell the profile with trips=.", 1.0,
        )


def _unbalanced_cores(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """A core has less to do than another."""
    active = active_us(profile)
    least, most = min(active), max(active)
    share = (most - least) / profile.latency_us
    if share >= 2 * _SHARE:
        idler = active.index(least)
        waits = [wait for wait in meeting_waits(profile) if wait.core == idler]
        yield Advice(
            "unbalanced cores", profile.location(waits[0].cause) if waits else None,
            f"core {idler} works {share:.0%} of the launch less than core {active.index(most)}",
            "Divide the work so that both cores take as long: more tiles for the one that waits.", share,
        )


def _barrier_bound(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Both cores wait for each other, again and again, or have not much more to do than to meet."""
    share = min(waiting_us(profile)) / profile.latency_us
    if share >= 2 * _SHARE:
        waits = meeting_waits(profile)
        where = waits[0].location if waits else profile.location(int(np.flatnonzero(barriers(profile))[0]))
        count = len(np.unique(np.asarray(profile.workload.meetings))) - 1
        yield Advice(
            "barrier-bound", where, f"every core waits {share:.0%} of the launch at {count} meetings",
            "Meet less often: let a core do more between two meetings, and other work while it waits.", share,
        )


def _communication_not_hidden(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Collectives on the critical path."""
    share = exposed_us(profile) / profile.latency_us
    if share >= 2 * _SHARE:
        worst = communication(profile)[0]
        found = worst.collective
        hidden = max(0.0, 1 - worst.exposed_us / (worst.busy_us + worst.delayed_us))
        yield Advice(
            "communication not hidden", worst.location,
            f"{share:.0%} of the launch is communication on the critical path; {hidden:.0%} of this {found.kind} of "
            f"{found.size:,} bytes by {found.transfer.algorithm} is hidden",
            "Cut it into pieces that take turns with what makes or uses them, or start it earlier: it runs beside "
            "whatever does not need its result.", share,
        )


def _communication_contends(profile: Profile, uses: _Uses) -> Iterator[Advice]:
    """Collectives that loads and stores delay."""
    found = max(communication(profile), key=lambda c: c.delayed_us, default=None)
    if found is None:
        return
    share = found.delayed_us / profile.latency_us
    if share >= _SHARE:
        yield Advice(
            "communication shares DMA", found.location,
            f"loads and stores beside {found.collective.kind} make it {found.delayed_us:.1f} us longer, {share:.0%} of "
            "the launch",
            "DMA engines and memory serve collectives and the kernel's transfers in turn: load before it starts, keep "
            "in SBUF what is loaded again, or let it run beside compute that moves nothing.", share,
        )


def _engine(queue: str) -> str:
    """An engine in a sentence."""
    name = without_core(queue)
    return f"{name} Engine{queue.removeprefix(name)}"


def _is_dma(profile: Profile, group: _Group) -> bool:
    return profile.costs[group.signature.id].dma_engines > 0


_RULES = (
    _overflow, _guessed_loops, _reloads, _small_transfers, _few_partitions, _waiting_for_dma, _float32_products,
    _short_instructions, _bank_conflicts, _low_utilization, _unbalanced_cores, _barrier_bound,
    _communication_not_hidden, _communication_contends,
)
