"""A profile: the modelled execution of a launch, and the questions it answers.

Everything here is modelled. docs/calibration.md holds the model against published measurements.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nkilite.errors import MemoryOverflow
from nkilite.ir.definition import Meets
from nkilite.ir.program import Program, Signature
from nkilite.later import later
from nkilite.location import Location
from nkilite.machine.communication import World
from nkilite.machine.engine import Engine
from nkilite.machine.target import Target
from nkilite.machine.timeline import BUSY, FREE, Order, Timeline, Workload
from nkilite.notebook import rendered
from nkilite.once import cached_property
from nkilite.profiling.accuracy import Accuracy, accuracy_of, kind_of
from nkilite.profiling.communication import Collective
from nkilite.profiling.joined import Joined
from nkilite.profiling.queues import COLLECTIVES, FIRST_TRIGGER, PER_CORE, QUEUES, named_on, queue_name, without_core
from nkilite.profiling.spill import Spills
from nkilite.profiling.summary import Summary
from nkilite.profiling.workload import Costs, signature_ids

if TYPE_CHECKING:  # what draws profiles
    from nkilite.profiling import html, text
else:
    html, text = later("nkilite.profiling.html"), later("nkilite.profiling.text")

__all__ = ["EngineUse", "Gap", "LineCost", "Profile"]

COMPUTE = tuple(engine.value for engine in (Engine.tensor, Engine.vector, Engine.scalar, Engine.gpsimd))
IF_USED = (Engine.sync.value, COLLECTIVES)


class EngineUse(NamedTuple):
    """How much an engine did: instructions, microseconds busy, and the fraction of the launch it was busy.

    For DMA, busy means that at least one of the DMA engines moved data.
    """

    instructions: int
    busy_us: float
    active: float


class Gap(NamedTuple):
    """A time an engine idled: it waited for `cause` before it could start `instruction` (-1: nothing to wait for)."""

    queue: str
    start_us: float
    length_us: float
    instruction: int
    cause: int


class LineCost(NamedTuple):
    """What one source line took: engine time (of its DMAs, the mean over the DMA engines), and time on the critical
    path."""

    location: Location
    instructions: int
    busy_us: dict[str, float]
    critical_us: float

    @property
    def total_us(self) -> float:
        return sum(self.busy_us.values())


@dataclass(repr=False)
class Profile:
    """The modelled execution of one kernel launch.

    Attributes:
        name: the kernel.
        target: the modelled chip.
        order: ``compiler`` (list-scheduled within each engine) or ``program`` (queues in program order).
        launch: the traced, allocated programs of all cores, their loops unrolled.
        workload, timeline: input and result of the timing model, by instruction.
        summary: counts, bytes and memory peaks.
        costs, ids: cost of every signature, and the signature of every instruction.
        guessed: lines of loops that were taken to run once, because only the device knows how often they do and
            `trips` was not given.
        world: the ranks it communicates with, on their chips; None without communication.
        collectives: the communication, by signature.
        overflow: what did not fit on chip; the times are then a lower bound, for reloading is not counted.
        spills: what the vendor's compiler would move through HBM because it does not fit, of a program that it manages;
            that is counted.
    """

    name: str
    target: Target
    order: Order
    launch: Joined
    workload: Workload
    timeline: Timeline
    summary: Summary
    costs: Costs
    ids: np.ndarray
    overflow: MemoryOverflow | None = None
    guessed: tuple[Location, ...] = ()
    world: World | None = None
    collectives: Mapping[int, Collective] = field(default_factory=dict)
    spills: Spills | None = None

    @property
    def program(self) -> Program:
        """The programs of all cores as one."""
        return self.launch.program

    @property
    def cores(self) -> int:
        """How many run the launch."""
        return self.launch.cores

    @property
    def machine(self) -> str:
        """What runs it, in words."""
        cores = self.target.name if self.cores == 1 else f"{self.cores} cores of {self.target.name}"
        world = self.world
        return cores if world is None else f"{cores}, one of {world.ranks} ranks on {world.topology.name}"

    @property
    def error(self) -> str:
        """What is known of the error of the modelled times, in words."""
        known = "" if self.target.calibrated else f"{self.target.name} is not calibrated; "
        return f"modelled; {known}{self.accuracy}"

    @cached_property
    def accuracy(self) -> Accuracy:
        """How far the latency may be off, from measured kernels of this kind."""
        kind = kind_of(self.program.managed, self.latency_us, without_core(self.bottleneck))
        used = [without_core(name) for name, use in self.engines.items() if use.instructions]
        return accuracy_of(kind, self.target.name, self.latency_us, used, self.cores)

    @property
    def guessed_loops(self) -> int:
        """How many loops were taken to run once."""
        return len(self.guessed)

    # --- the headline -------------------------------------------------------------------------------------------------

    @property
    def span_us(self) -> float:
        """From the first instruction to the last result."""
        return self.timeline.span_ns / 1000

    @property
    def latency_us(self) -> float:
        """Device time of a launch as nki.benchmark reports it (nc_latency), start-up and tear-down included."""
        return self.span_us + (self.target.launch_ns + self.target.teardown_ns) / 1000

    @property
    def captured_us(self) -> float:
        """How long a captured profile of the launch would be: what capturing adds is in no benchmark."""
        return self.latency_us + self.target.capture_ns / 1000

    @property
    def hbm_read_bytes(self) -> int:
        return self.summary.hbm_read_bytes

    @property
    def hbm_write_bytes(self) -> int:
        return self.summary.hbm_write_bytes

    @property
    def sbuf_peak_bytes(self) -> int:
        """Most bytes per partition live at once in SBUF."""
        return self.summary.sbuf_peak_bytes

    @property
    def psum_peak_banks(self) -> int:
        """Most PSUM banks in use at once."""
        return self.summary.psum_peak_banks

    @cached_property
    def flops(self) -> int:
        """Floating-point operations of matrix products; transposes by the Tensor Engine do not count."""
        return sum(int(n) * matmul_flops(self.program.signatures[s])[0] for s, n in self._uses)

    @cached_property
    def _uses(self) -> list[tuple[int, int]]:
        counts = np.bincount(self.ids, minlength=len(self.program.signatures))
        return [(s, int(counts[s])) for s in np.flatnonzero(counts).tolist()]

    @cached_property
    def ideal_tensor_us(self) -> float:
        """Time the products would take at the peak rate of their dtypes."""
        total = 0.0
        for number, count in self._uses:
            flops, dtype = matmul_flops(self.program.signatures[number])
            if flops:
                total += count * flops / self.target.matmul_flops_per_ns(dtype)
        return total / 1000

    @property
    def mfu(self) -> float:
        """Matrix product FLOP/s over the peak for the operands' dtypes, 0 to 1."""
        return self.ideal_tensor_us / self.cores / self.latency_us

    @property
    def hbm_bytes(self) -> int:
        return self.hbm_read_bytes + self.hbm_write_bytes

    @property
    def mbu(self) -> float:
        """HBM bytes per second over the cores' share of device memory bandwidth, 0 to 1."""
        return self.hbm_bytes / (self.latency_us * 1000 * self.target.hbm_bytes_per_ns * self.cores)

    @property
    def arithmetic_intensity(self) -> float:
        """Matrix product FLOPs per HBM byte."""
        return self.flops / self.hbm_bytes if self.hbm_bytes else math.inf if self.flops else 0.0

    # --- engines ------------------------------------------------------------------------------------------------------

    @cached_property
    def engines(self) -> dict[str, EngineUse]:
        """Use of each engine, by name; ``DMA`` stands for the 16 together, ``Collectives`` for what carries those out.
        Of several cores, names say which."""
        queues = np.asarray(self.workload.queues)
        busy = self.held_ns
        latency = self.latency_us
        moves = self.dma_instructions
        found = {}
        for core in range(self.cores):
            for queue in (*COMPUTE, *IF_USED):
                mine = queues == queue + PER_CORE * core
                time = float(busy[mine].sum()) / 1000
                if queue in COMPUTE or mine.any():
                    name = named_on(QUEUES[queue], core, self.cores)
                    found[name] = EngineUse(int(mine.sum()), time, time / latency)
            own = moves[self.launch.core[moves] == core]
            covered = union_ns(self.timeline.moving[own], self.timeline.finish[own]) / 1000
            found[named_on("DMA", core, self.cores)] = EngineUse(len(own), covered, covered / latency)
        return found

    @property
    def held_ns(self) -> np.ndarray:
        """How long each instruction held its queue."""
        result: np.ndarray = self.timeline.end - self.timeline.start
        return result

    @cached_property
    def dma_instructions(self) -> np.ndarray:
        """Indices of the DMA instructions."""
        return np.flatnonzero(np.asarray(self.workload.dma_engines).reshape(-1, 2)[:, 1])

    @property
    def dma_utilization(self) -> float:
        """Fraction of the launch the DMA engines moved data, averaged over the engines."""
        return float(self.moved_ns.sum()) / self.cores / (self.latency_us * 1000)

    @cached_property
    def moved_ns(self) -> np.ndarray:
        """Time each transfer takes of the DMA engines of its core, averaged over them; 0 for compute."""
        counts = np.asarray(self.workload.dma_engines).reshape(-1, 2)[:, 1]
        result: np.ndarray = np.asarray(self.workload.transfer_ns) * counts / self.target.dma_engines
        return result

    @property
    def bottleneck(self) -> str:
        """The engine (or DMA) that was busy longest."""
        return max(self.engines.items(), key=lambda item: item[1].busy_us)[0]

    def queue_of(self, instruction: int) -> str:
        return queue_name(self.workload.queues[instruction], self.cores)

    # --- why ----------------------------------------------------------------------------------------------------------

    @cached_property
    def critical_path(self) -> list[int]:
        """Instructions, first to last, each of which began when the one before it allowed."""
        return self.timeline.critical_path()

    @cached_property
    def critical_us(self) -> np.ndarray:
        """Time each instruction adds to the critical path."""
        path = self.critical_path
        spent = np.zeros(len(self.workload))
        if path:
            begins = self.timeline.start[path]
            spent[path] = np.diff(np.append(begins, self.timeline.span_ns)) / 1000
        return spent

    @cached_property
    def gaps(self) -> list[Gap]:
        """Idle times of the compute engines, longest first."""
        line = self.timeline
        queues = np.asarray(self.workload.queues)
        since = np.where(line.before >= 0, line.end[line.before], 0.0)
        computes = queues % PER_CORE < FIRST_TRIGGER
        before, waiting = line.arrival - since, line.start - line.arrival
        idle = np.flatnonzero((before > 0) & computes & (line.cause != BUSY))
        met = np.flatnonzero((waiting > 0) & computes)
        found = [
            Gap(self.queue_of(i), at / 1000, length / 1000, i, max(cause, -1))
            for which, starts, lengths, causes in (
                (idle, since, before, line.cause), (met, line.arrival, waiting, line.partner)
            )
            for i, at, length, cause in zip(
                which.tolist(), starts[which].tolist(), lengths[which].tolist(), causes[which].tolist(), strict=True
            )
        ]
        return sorted(found, key=lambda gap: -gap.length_us)

    def waits(self, queue: str) -> dict[str, float]:
        """Microseconds a compute engine idled, by what it waited for: another engine, DMA, or the start."""
        found: dict[str, float] = defaultdict(float)
        for gap in self.gaps:
            if gap.queue == queue:
                cause = self.queue_of(gap.cause) if gap.cause >= 0 else "launch"
                core = self.launch.core[gap.cause]
                found[named_on("DMA", core, self.cores) if cause.startswith("DMA") else cause] += gap.length_us
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    @cached_property
    def lines(self) -> list[LineCost]:
        """Cost by source line, the most expensive first."""
        where = np.frombuffer(self.program.code, np.int64)[self.starts + 1]
        queues = np.asarray(self.workload.queues)
        kinds = np.minimum(queues % PER_CORE, FIRST_TRIGGER)  # all DMAs together
        time = np.where(kinds == FIRST_TRIGGER, self.moved_ns, self.held_ns) / 1000
        width = (FIRST_TRIGGER + 1) * self.cores
        n_places = len(self.program.locations)
        groups = kinds + (FIRST_TRIGGER + 1) * self.launch.core
        table = np.bincount(where * width + groups, time, n_places * width).reshape(n_places, -1)
        critical = np.bincount(where, self.critical_us, n_places)
        uses = np.bincount(where, minlength=n_places)
        names = {}
        for group in range(width):
            core, kind = divmod(group, FIRST_TRIGGER + 1)
            names[group] = named_on("DMA" if kind == FIRST_TRIGGER else QUEUES.get(kind, ""), core, self.cores)
        found = [
            LineCost(
                location, int(uses[i]), {names[g]: float(table[i, g]) for g in np.flatnonzero(table[i]).tolist()},
                float(critical[i]),
            )
            for i, location in enumerate(self.program.locations) if uses[i]
        ]
        return sorted(found, key=lambda cost: -cost.total_us)

    def describe(self, instruction: int) -> str:
        """An instruction in words: what it is and where it stands."""
        if instruction < 0:
            return {FREE: "nothing", BUSY: "its engine"}[instruction]
        location = self.location(instruction)
        name = self.program.names.get(instruction, "")
        label = f" {name!r}" if name else ""
        on = f" on core {self.launch.core[instruction]}" if self.cores > 1 else ""
        return f"{self.opcode(instruction)}{label} #{instruction}{on} (line {location.line})"

    def opcode(self, instruction: int) -> str:
        return public_opcode(self.program.signatures[int(self.ids[instruction])])

    def location(self, instruction: int) -> Location:
        """The user's line of an instruction."""
        return self.program.locations[self.program.code[int(self.starts[instruction]) + 1]]

    @cached_property
    def starts(self) -> np.ndarray:
        """The word position of every instruction in the program's code."""
        return signature_ids(self.program)[1]

    def __str__(self) -> str:
        return f"{self.name} on {self.machine}: {self.latency_us:.2f} us ({self.error})"

    def __repr__(self) -> str:
        return f"<nki profile of {self}>"

    # --- pictures -----------------------------------------------------------------------------------------------------

    def html(self, path: str | PathLike[str]) -> None:
        """Write the report: one page that needs nothing else."""
        html.write_page(self, path)

    def show(self) -> None:
        """Show the report: below the cell of a notebook, else in the browser."""
        html.show_page(self)

    def _repr_html_(self) -> str:
        return rendered(text.comparison([self]), text.line_table(self), text.advice_text(self))


_PRODUCTS = ("nc_matmul", "nc_matmul_mx", "nc_matmul_sparse")


def public_opcode(signature: Signature) -> str:
    """The function that a kernel calls for an instruction."""
    kind = signature.arguments.get("kind") if signature.definition.meets is Meets.ranks else None
    return kind or signature.name


def matmul_flops(signature: Signature) -> tuple[int, str]:
    """Floating-point operations of a matrix product, and the dtype whose peak applies; 0 for everything else.

    Of a sparse product those on the elements that are stored count, against the dense peak.
    """
    if signature.name not in _PRODUCTS or signature.arguments.get("is_transpose"):
        return 0, ""
    stationary, moving = signature.arguments["stationary"], signature.arguments["moving"]
    depth = stationary.partitions
    dtypes = (str(stationary.dtype), str(moving.dtype))
    dtype = "float32" if "float32" in dtypes else dtypes[0]
    if signature.name == "nc_matmul_mx":
        depth *= 4
    elif getattr(signature.arguments.get("perf_mode"), "name", "none") == "double_row":
        depth *= 2
    elif "float8" in dtype:
        dtype = "bfloat16"  # the faster peak belongs to double_row mode
    return 2 * depth * signature.arguments["dst"].partitions * signature.arguments["dst"].free_size, dtype


def union_ns(start: np.ndarray, end: np.ndarray) -> float:
    """Length of the union of intervals."""
    if not len(start):
        return 0.0
    order = np.argsort(start)
    start, end = start[order], end[order]
    reached = np.maximum.accumulate(end)
    before = np.concatenate([[start[0]], reached[:-1]])
    return float(np.maximum(reached - np.maximum(before, start), 0).sum())
