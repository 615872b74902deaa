"""Kernels on two cores, drawn from a seed, with what NumPy says that they compute and whether their cores race.

Both cores have tiles and private memory, and share tensors. Between two meetings each does what it does; a stretch may
be in a loop that the device runs. The interpreter below takes the stretches of the cores one after the other and keeps
the bytes that each has touched, so that it knows races without any analysis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

ROWS, COLUMNS = 64, 24
TILES, SHARED = 3, 2
X = np.random.default_rng(0).integers(-50, 50, (2, ROWS, COLUMNS)).astype(np.float32)

OPERATORS: dict[str, tuple[Any, Callable[..., np.ndarray]]] = {
    "maximum": (nl.maximum, np.maximum), "minimum": (nl.minimum, np.minimum), "subtract": (nl.subtract, np.subtract),
}
EXCHANGED: dict[str, tuple[Any, Callable[..., np.ndarray]]] = {
    "add": (nl.add, np.add), "maximum": (nl.maximum, np.maximum), "minimum": (nl.minimum, np.minimum),
}
# How a shared tensor is seen; the same for a tensor in a kernel and for an array of NumPy.
VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda t: t,
    "other rows": lambda t: t.reshape((ROWS // 2, 2 * COLUMNS)),
    "every other row": lambda t: t[1::2],
    "groups": lambda t: t.reshape((ROWS // 4, 4, COLUMNS))[:, 2],
}


Region = tuple[slice, slice]  # rows and columns, of a tile or of a view of a shared tensor


class Step(NamedTuple):
    """What one core does, or both at a meeting.

    Attributes:
        kind: compute, store, load, place (a store to the row that the turn of a loop chooses), exchange, combine (an
            exchange that reduces), barrier, or loop.
        tile, region: what is written of a tile; of a store, what is read.
        shared, view, there: the other end of a transfer; of an exchange, `tile` and `there` are what is sent.
        op: of a combination.
        body: of a loop, its steps; `trips` of them.
    """

    kind: str
    tile: int = 0
    region: Region | None = None
    shared: int = 0
    view: str = "itself"
    there: Region | None = None
    op: str = ""
    body: tuple[tuple[Step, Step], ...] = ()
    trips: int = 0


Steps = tuple[tuple[Step, Step], ...]  # of the two cores; meetings stand on both sides


def drawn(seed: int, tame: bool) -> Steps:
    """The steps of both cores. Where they are `tame`, each core keeps to its own half of the shared rows."""
    return tuple(_steps(np.random.default_rng(seed), tame, nested=True))


def _steps(rng: np.random.Generator, tame: bool, nested: bool) -> Iterator[tuple[Step, Step]]:
    for _ in range(rng.integers(2, 5)):
        for _ in range(rng.integers(1, 4)):
            yield _own(rng, tame, 0, nested), _own(rng, tame, 1, nested)
        kind = rng.choice(["barrier", "barrier", "exchange", "combine", "loop" if nested else "barrier"])
        if kind == "loop":
            loop = Step("loop", body=tuple(_steps(rng, tame, False)), trips=int(rng.integers(0, 4)))
            yield loop, loop
            continue
        width = int(rng.integers(1, COLUMNS // 2))
        regions = [(slice(0, ROWS), slice(begin, begin + width)) for begin in (0, COLUMNS // 2)]
        op = str(rng.choice(list(EXCHANGED)))
        step = Step(str(kind), int(rng.integers(TILES)), regions[0], there=regions[1], op=op)
        yield step, step


def _own(rng: np.random.Generator, tame: bool, core: int, outside: bool) -> Step:
    kind = str(rng.choice(["compute", "store", "load"] if outside else ["compute", "store", "load", "place"]))
    tile = int(rng.integers(TILES))
    if kind == "place":
        first = int(rng.integers(ROWS // 2 - 4)) + core * ROWS // 2 * (tame or int(rng.integers(2)))
        return Step(kind, tile, (slice(first, first + 2), slice(0, COLUMNS)), int(rng.integers(SHARED)))
    if kind == "compute":
        columns = _slice(rng, COLUMNS)
        return Step(kind, tile, (slice(0, ROWS), columns), int(rng.integers(TILES)), op=str(rng.choice(
            list(OPERATORS)
        )))
    view = str(rng.choice(list(VIEWS)))
    rows, width = VIEWS[view](np.empty((ROWS, COLUMNS))).shape
    half = rows // 2
    there = (_slice(rng, half), _slice(rng, min(width, COLUMNS)))
    if tame or rng.integers(2):
        there = (_moved(there[0], core * half), there[1])
    counts = [len(range(*s.indices(ROWS))) for s in there]
    begin = int(rng.integers(ROWS - counts[0] + 1)), int(rng.integers(COLUMNS - counts[1] + 1))
    region = slice(begin[0], begin[0] + counts[0]), slice(begin[1], begin[1] + counts[1])
    return Step(kind, tile, region, int(rng.integers(SHARED)), view, there)


def _slice(rng: np.random.Generator, size: int) -> slice:
    begin = int(rng.integers((size + 1) // 2))
    return slice(begin, int(rng.integers(begin, size)) + 1, int(rng.integers(1, 4)))


def _moved(found: slice, by: int) -> slice:
    return slice(found.start + by, found.stop + by, found.step)


# --- as a kernel ----------------------------------------------------------------------------------------------------


def kernel(x: Any, counts: Any, steps: Steps) -> Any:
    """What both cores do: results are all that the cores share, and every core's tiles."""
    core = nl.program_id(0)
    shared = [nl.ndarray((ROWS, COLUMNS), dtype=nl.float32, buffer=nl.shared_hbm) for _ in range(SHARED)]
    tiles = [nl.ndarray((ROWS, COLUMNS), dtype=nl.float32, buffer=nl.sbuf) for _ in range(TILES)]
    results = nl.ndarray((2, TILES, ROWS, COLUMNS), dtype=nl.float32, buffer=nl.shared_hbm)
    private = [nl.ndarray((ROWS, COLUMNS), dtype=nl.float32, buffer=nl.private_hbm) for _ in range(2)]
    for tile in tiles:
        nisa.dma_copy(tile, x[core])
    if core == 0:
        for tensor in shared:
            nisa.dma_copy(tensor, x[1])
    nisa.core_barrier(shared[0], (0, 1))
    _write(Core(core, counts, shared, tiles, private), steps)
    for tile, place in zip(tiles, range(TILES), strict=True):
        nisa.dma_copy(results[core, place], tile)
    return *shared, results


class Core(NamedTuple):
    """What a core has in a kernel."""

    number: int
    counts: Any
    shared: list[Any]
    tiles: list[Any]
    private: list[Any]


def _write(core: Core, steps: Steps, turn: Any = None) -> None:
    for pair in steps:
        step = pair[core.number]
        if step.kind == "loop":
            bound = nisa.register_alloc(core.counts[step.trips : step.trips + 1])
            nl.fori_loop(0, bound, lambda turn, body=step.body: _write(core, body, turn))
        elif step.kind == "barrier":
            nisa.core_barrier(core.shared[step.tile % SHARED], (0, 1))
        else:
            _WRITES[step.kind](core, step, core.tiles[step.tile][step.region], turn)


def _write_compute(core: Core, step: Step, place: Any, turn: Any) -> None:
    nisa.tensor_tensor(place, place, core.tiles[step.shared][step.region], OPERATORS[step.op][0])


def _write_store(core: Core, step: Step, place: Any, turn: Any) -> None:
    nisa.dma_copy(VIEWS[step.view](core.shared[step.shared])[step.there], place)


def _write_load(core: Core, step: Step, place: Any, turn: Any) -> None:
    nisa.dma_copy(place, VIEWS[step.view](core.shared[step.shared])[step.there])


def _write_place(core: Core, step: Step, place: Any, turn: Any) -> None:
    pattern, offset = [[COLUMNS, 2], [1, COLUMNS]], step.region[0].start * COLUMNS
    chosen = core.shared[step.shared].ap(pattern=pattern, offset=offset, scalar_offset=turn, indirect_dim=0)
    nisa.dma_copy(chosen, place)


def _write_exchange(core: Core, step: Step, place: Any, turn: Any) -> None:
    other = 1 - core.number
    nisa.sendrecv(core.tiles[step.tile][step.there], place, other, other, 0)


def _write_combine(core: Core, step: Step, place: Any, turn: Any) -> None:
    other, op, sent = 1 - core.number, EXCHANGED[step.op][0], core.tiles[step.tile][step.there]
    if step.tile:
        nisa.sendrecv_compute(sent, place, other, other, op)
        return
    mine, both = (tensor[step.region] for tensor in core.private)
    nisa.dma_copy(mine, sent)
    nisa.sendrecv_compute(mine, both, other, other, op)
    nisa.dma_copy(place, both)


_WRITES = {
    "compute": _write_compute, "store": _write_store, "load": _write_load, "place": _write_place,
    "exchange": _write_exchange, "combine": _write_combine,
}


# --- in NumPy -------------------------------------------------------------------------------------------------------


class Run:
    """The steps, the stretches of one core before those of the other; `trips` are those of loops, if not their own.

    Attributes:
        races: whether between two meetings one core has written what the other touched.
        seen: whether that is so but for places that only the device chooses.
        results: what the kernel returns, if they do not race.
    """

    def __init__(self, steps: Steps, trips: Sequence[int] = ()) -> None:
        self._trips = trips
        self.shared = [X[1].copy() for _ in range(SHARED)]
        self.tiles = [[X[core].copy() for _ in range(TILES)] for core in range(2)]
        self.races = self.seen = False
        self._begin()
        self._run(steps)
        self._meet()

    @property
    def results(self) -> list[np.ndarray]:
        return [*self.shared, np.array(self.tiles)]

    def _begin(self) -> None:
        self._read, self._written, self._placed = (np.zeros((2, SHARED, ROWS, COLUMNS), bool) for _ in range(3))

    def _meet(self) -> None:
        self.seen |= _meet(self._read, self._written)
        self.races |= _meet(self._read, self._written | self._placed)
        self._begin()

    def _run(self, steps: Steps, turn: int = 0) -> None:
        trips = iter(self._trips)
        for one, other in steps:
            if one.kind == "loop":
                for i in range(next(trips, one.trips)):
                    self._run(one.body, i)
            elif one.kind in ("compute", "store", "load", "place"):
                for core, step in enumerate((one, other)):
                    self._do(core, step, turn)
            else:
                self._meet()
                self._exchange(one)

    def _do(self, core: int, step: Step, turn: int) -> None:
        tiles, region = self.tiles[core], step.region
        assert region is not None
        place = tiles[step.tile][region]
        if step.kind == "place":
            rows = _moved(region[0], turn)
            self._placed[core, step.shared, rows] = True
            self.shared[step.shared][rows] = place
            return
        if step.kind == "compute":
            place[...] = OPERATORS[step.op][1](place, tiles[step.shared][region])
            return
        marks = (self._written if step.kind == "store" else self._read)[core, step.shared]
        VIEWS[step.view](marks)[step.there] = True
        if step.kind == "store":
            VIEWS[step.view](self.shared[step.shared])[step.there] = place
        else:
            place[...] = VIEWS[step.view](self.shared[step.shared])[step.there]

    def _exchange(self, step: Step) -> None:
        if step.kind == "barrier":
            return
        sent = [tiles[step.tile][step.there].copy() for tiles in self.tiles]
        for core, tiles in enumerate(self.tiles):
            other = sent[1 - core]
            result = other if step.kind == "exchange" else EXCHANGED[step.op][1](sent[core], other)
            tiles[step.tile][step.region] = result


def may_race(steps: Steps) -> bool:
    """Whether the cores race for some counts of the loops' turns: a compiler knows none of them."""
    loops = sum(step.kind == "loop" for step, _ in steps)
    return any(Run(steps, trips).races for trips in itertools.product((0, 3), repeat=loops))


def _meet(read: np.ndarray, written: np.ndarray) -> bool:
    touched = read | written
    return bool((written[0] & touched[1] | written[1] & touched[0]).any())


COUNTS = np.arange(4, dtype=np.int32).reshape(4, 1)


def launches(steps: Steps) -> dict[str, Callable[[], list[np.ndarray]]]:
    """The kernel on two cores, simulated and compiled; what it returns."""

    def drawn_kernel(x: Any, counts: Any) -> Any:
        return kernel(x, counts, steps)

    def launch(launched: Any) -> list[np.ndarray]:
        return [np.asarray(result) for result in launched(X, COUNTS)]

    kernels = {"simulate": nki.simulate(drawn_kernel)[2], "compiled": nki.jit(drawn_kernel)[2]}
    return {mode: lambda launched=launched: launch(launched) for mode, launched in kernels.items()}
