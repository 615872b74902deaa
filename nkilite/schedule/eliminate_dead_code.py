"""Leave out instructions whose results nobody reads: a model of the chip counts them, the CPU need not run them."""

from __future__ import annotations

from array import array

import numpy as np

from nkilite.ir.accesses import Spaces
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.program import Program, Signature
from nkilite.ir.types import MemoryRegion
from nkilite.machine.rows import unique
from nkilite.schedule.schedule import Schedule


class EliminateDeadCode:
    """Drop instructions that write nothing but memory of the kernel that nothing needed reads.

    Needed are results, arguments, registers of engines, and what the launch's other core may read; so is whatever tells
    somebody something: prints, meetings, loops, operators of the user's, and what ends with an error at an index that
    is out of bounds. Reads of unwritten memory, NaN and races have been looked for before, or are instructions.
    """

    def run(self, schedule: Schedule) -> Schedule:
        program = schedule.program
        columns = Columns.of(program)
        needed = _needed(program)
        space = Spaces(program).space
        if _suspicious(columns, space, needed):
            flow = _Flow(columns, space, len(needed))
            live = flow.live(needed, np.array([_speaks(s) for s in program.signatures], bool)[columns.ids])
            if not live.all():
                _keep(program, columns, live)
        return schedule


def _needed(program: Program) -> np.ndarray:
    """Whether memory is needed by others, by space."""
    buffers, space = BufferColumns.of(program), Spaces(program).space
    others = ~buffers.internal | buffers.chosen({b.id for b in program.outputs})
    if program.cores > 1:
        others |= buffers.within(MemoryRegion.shared_hbm)
    needed = np.zeros(max(space.max(initial=-1) + 1, 1), bool)
    needed[space[others]] = True
    return needed


def _speaks(signature: Signature) -> bool:
    """Whether an instruction does something beside writing memory, or may."""
    definition = signature.definition
    plain = definition.control is None and definition.meets is None and not signature.checks_indices
    return not (plain and signature.access.known and any(o.writes for o in signature.operands))


def _suspicious(columns: Columns, space: np.ndarray, needed: np.ndarray) -> bool:
    """Whether some space is written, and only read by what writes it."""
    written, read = np.zeros((2, len(needed)), bool)
    for signature, _, starts in columns.uses():
        spaces = {o: space[columns.code[starts + o.word]] for o in signature.operands}
        own = [spaces[o] for o in signature.operands if o.writes]
        for there in own:
            written[there] = True
        for operand in signature.operands:
            if operand.reads:
                there = spaces[operand]
                read[there[np.logical_and.reduce([there != other for other in own])] if own else there] = True
    return bool((written & ~read & ~needed).any())


class _Flow:
    """Which instructions write and read which spaces."""

    def __init__(self, columns: Columns, space: np.ndarray, spaces: int) -> None:
        pairs: dict[bool, list[np.ndarray]] = {False: [], True: []}
        for signature, rows, starts in columns.uses():
            for operand in signature.operands:
                used = space[columns.code[starts + operand.word]]
                for writes, has in ((True, operand.writes), (False, operand.reads)):
                    if has:
                        pairs[writes].append(np.stack([rows, used]))
        none = np.empty((2, 0), np.int64)
        self._writes, self._reads = (np.concatenate([none, *pairs[kind]], axis=1) for kind in (True, False))
        self._count, self._spaces = len(columns.ids), spaces

    def live(self, needed: np.ndarray, live: np.ndarray) -> np.ndarray:
        """The instructions that are needed, given some and the spaces that are."""
        live, reached = live.copy(), needed.copy()
        writers = _Index(self._writes[1], self._writes[0], self._spaces)
        read = _Index(self._reads[0], self._reads[1], self._count)
        found = np.flatnonzero(live)
        spaces = np.flatnonzero(reached)
        while len(found) or len(spaces):
            more = writers.of(spaces)
            found = unique(np.concatenate([found, more[~live[more]]]))
            live[found] = True
            spaces = unique(read.of(found))
            spaces = spaces[~reached[spaces]]
            reached[spaces] = True
            found = found[:0]
        return live


class _Index:
    """Values by key."""

    def __init__(self, keys: np.ndarray, values: np.ndarray, count: int) -> None:
        order = np.argsort(keys, kind="stable")
        self._values = values[order]
        self._bounds = np.searchsorted(keys[order], np.arange(count + 1))

    def of(self, keys: np.ndarray) -> np.ndarray:
        """The values of some keys."""
        first, sizes = self._bounds[keys], self._bounds[keys + 1] - self._bounds[keys]
        at = np.repeat(first - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        found: np.ndarray = self._values[at]
        return found


def _keep(program: Program, columns: Columns, live: np.ndarray) -> None:
    """Drop the instructions that are not live, and what is said of them."""
    kept = np.flatnonzero(live)
    widths = np.array([s.n_words for s in program.signatures], np.int64)
    mask = np.repeat(live, widths[columns.ids])
    program.code, program.count = array("q", columns.code[mask].tobytes()), len(kept)
    before = np.concatenate([[0], np.cumsum(live)]).tolist()  # instructions that are kept in front of each
    program.names = {before[i]: name for i, name in program.names.items() if live[i]}
    program.dependencies = [(before[a], before[b]) for a, b in program.dependencies if live[a] and live[b]]
    program.affine = [[before[i] for i in bounds] for bounds in program.affine]
