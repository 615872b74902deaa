"""Follow which on-chip bytes have been written: settles accumulate=None and rejects reads of never-written memory."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from nkilite import dtypes
from nkilite.ir.columns import BufferColumns, Columns
from nkilite.ir.coverage import (
    Coverage,
    Covered,
    Foreign,
    check_accumulation,
    check_read,
    runs_on_tensor_engine,
)
from nkilite.ir.definition import Control
from nkilite.ir.loops import Loop, carrying, has_loops, loops
from nkilite.ir.program import Operand, Program, Signature
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.ir.unwritten import Suspect, report
from nkilite.passes.histories import Histories
from nkilite.passes.plain_writes import PlainWrites, inferred, plain_writes, touching, zeroed
from nkilite.passes.splice import View, assemble, splice


class FollowWrites:
    """accumulate=None becomes False where a matmul is the first write of its PSUM region and True elsewhere.

    Coverage is kept per buffer and per byte: banks are reused through `address=`, and kernels fill a tile piecewise.
    A matmul onto a region that is only partly written gets its unwritten part zeroed first and then accumulates. So
    does, with the whole buffer in the place of the region, one whose region a runtime index chooses.

    The body of a loop is followed as its first iteration. A matmul in a body onto a tile made before the loop
    accumulates over the iterations, as it would if the loop were unrolled: what the first iteration would overwrite is
    zeroed before the loop. Every loop is taken to run at least once: what its body writes counts as written after it.
    """

    def run(self, program: Program) -> Program:
        written = plain_writes(program)
        _settle_plain(program, written)
        chosen = ~written.plain
        if not chosen.any():
            return program
        walk = _Walk(program)
        alike = [] if has_loops(program) else Histories(program, chosen & ~written.asked).alike()
        for same in alike:
            chosen[same[1:]] = False
        walk.follow(chosen)
        again = [id for same in alike if same[0] in walk.doubtful for id in same[1:]]
        if again:
            walk.follow(BufferColumns.of(program).chosen(set(again)))
        walk.finish()
        return program


class _State(NamedTuple):
    """What a walk knows where it is.

    Attributes:
        followed: by buffer, whether it is followed.
        open_loops: with the word positions of their beginnings.
    """

    followed: list[bool]
    coverage: _Each[Coverage]
    foreign: _Each[Foreign | None]
    open_loops: list[tuple[Loop, int]]


class _Walk:
    """Goes through a program, following what is written to some buffers.

    Attributes:
        doubtful: buffers of which something was read that was not written.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.doubtful: set[int] = set()
        self._suspects: list[tuple[int, int, Suspect]] = []  # with instruction and operand
        self._inserted: dict[int, list[int]] = {}

    def follow(self, chosen: np.ndarray) -> None:
        """Follow these buffers, from the first instruction to the last."""
        program = self._program
        buffers, followed = program.buffers, chosen.tolist()
        coverage = _Each(lambda id: Coverage(buffers[id]))
        foreign = _Each(lambda id: Foreign(buffers[id]) if buffers[id].region is MemoryRegion.psum else None)
        all_loops = loops(program)
        begun = 0
        open_loops: list[tuple[Loop, int]] = []
        state = _State(followed, coverage, foreign, open_loops)
        code, starts = program.code.tolist(), program.starts()
        plans = [_Plan(s) for s in program.signatures]
        control = [s.id for s in program.signatures if s.definition.control is not None]
        for index in touching(program, chosen, control).tolist():
            start = starts[index]
            plan = plans[code[start]]
            for word, kind, operand in plan.reads:
                id, offset = code[start + word], code[start + word + 1]
                if followed[id] and not (cover := coverage[id]).full and (kind, offset) not in cover.seen:
                    inner = open_loops[-1][0] if len(open_loops) > 1 else None
                    self._check_read(plan, operand, cover, index, (start, word), inner)
            if plan.adds is not None or plan.infers is not None or plan.zeroes:
                self._add(plan, start, state)
                if len(plans) < len(program.signatures):
                    plans += [_Plan(s) for s in program.signatures[len(plans):]]
            for word, kind, _ in plan.writes:
                id, offset = code[start + word], code[start + word + 1]
                if followed[id]:
                    others = foreign[id]
                    if others is not None:
                        others.wrote(kind, offset, plan.tensor_engine)
                    if not (cover := coverage[id]).full and (kind, offset) not in cover.seen:
                        cover.mark(kind, offset)
            if plan.control is Control.begin:
                open_loops.append((all_loops[begun], start))
                begun += 1
            elif plan.control is Control.end:
                open_loops.pop()

    def finish(self) -> None:
        """Report what was found, and zero what matmuls add to."""
        program = self._program
        report(program, [suspect for *_, suspect in sorted(self._suspects, key=lambda found: found[:2])])
        if self._inserted:
            widths = [s.n_words for s in program.signatures]
            code = program.code
            splice(program, {at: [*words, *code[at:at + widths[code[at]]]] for at, words in self._inserted.items()})

    def _check_read(
        self, plan: _Plan, operand: Operand, cover: Coverage, index: int, at: tuple[int, int], inner: Loop | None
    ) -> None:
        """Suspect a read of what nothing may have written, of the instruction that has a number, at a word."""
        program, (start, word) = self._program, at
        id, offset = program.code[start + word], program.code[start + word + 1]
        buffer = program.buffers[id]
        if inner is not None and buffer.loop != inner.number:
            return  # an inner loop may run for the first time in a later iteration of the outer one
        found = check_read(cover, plan.signature, operand, buffer, offset, program.locations[program.code[start + 1]])
        if found is not None:
            self._suspects.append((index, word, Suspect(index, found)))
            self.doubtful.add(id)

    def _add(self, plan: _Plan, start: int, state: _State) -> None:
        """Decide what the instruction at a word position adds to, and zero what of it nothing has written."""
        code, followed = self._program.code, state.followed
        if plan.adds is not None and followed[code[start + plan.adds.word]]:
            self._check_sum(plan, plan.adds, state.foreign, start)
        if plan.infers is not None and followed[id := code[start + plan.infers.word]]:
            self._settle(plan, plan.infers, state.coverage[id], start, state.open_loops)
        for operand in plan.zeroes:
            id = code[start + operand.word]
            if followed[id] and self._program.buffers[id].address is None:
                self._zero(operand, state.coverage[id], start, state.open_loops)

    def _check_sum(self, plan: _Plan, dst: Operand, foreign: _Each[Foreign | None], start: int) -> None:
        """Warn of a matmul at a word position that may add to what another engine wrote."""
        program = self._program
        id, offset = program.code[start + dst.word], program.code[start + dst.word + 1]
        others = foreign[id]
        if others is not None:
            location = program.locations[program.code[start + 1]]
            check_accumulation(others, plan.signature, dst, program.buffers[id], offset, location)

    def _settle(
        self, plan: _Plan, dst: Operand, cover: Coverage, start: int, open_loops: list[tuple[Loop, int]]
    ) -> None:
        """Decide accumulate=None of the instruction at a word position, from what is covered of `dst`."""
        program, code = self._program, self._program.code
        if cover.full or (dst.type, code[start + dst.word + 1]) in cover.seen:
            code[start] = plan.settled(program, True)
            return
        covered = cover.covered(dst.type, code[start + dst.word + 1])
        loop = carrying([loop for loop, _ in open_loops], program.buffers[code[start + dst.word]])
        dynamic = dst.type.indirection is not None
        if covered is Covered.some or (covered is Covered.none and (dynamic or loop is not None)):
            self._zero(dst, cover, start, open_loops)
            covered = Covered.some
        code[start] = plan.settled(program, covered is not Covered.none)

    def _zero(self, dst: Operand, cover: Coverage, start: int, open_loops: list[tuple[Loop, int]]) -> None:
        """Zero what nothing has written of an operand of the instruction at a word position, before that runs."""
        program, code = self._program, self._program.code
        id, where = code[start + dst.word], code[start + 1]
        buffer = program.buffers[id]
        kind, at = (dst.type, code[start + dst.word + 1]) if dst.type.indirection is None else (buffer.type, 0)
        if cover.covered(kind, at) is Covered.all:
            return
        loop = carrying([loop for loop, _ in open_loops], buffer)
        first = start if loop is None else next(at for outer, at in open_loops if outer is loop)
        words = _zeroing(program, kind, id, at, cover.unwritten(kind, at), where)
        self._inserted.setdefault(first, []).extend(words)


def _settle_plain(program: Program, written: PlainWrites) -> None:
    """Decide accumulate=None where the first write of a buffer is known, and is of all of it."""
    columns = Columns.of(program)
    settled: list[tuple[int, Signature, bool, np.ndarray]] = []
    for signature, rows, starts in columns.uses():
        dst = inferred(signature)
        if dst is None:
            continue
        used = columns.code[starts + dst.word]
        for accumulate in (False, True):
            chosen = written.plain[used] & ((written.first[used] != rows) == accumulate)
            if chosen.any():
                settled.append((int(rows[chosen][0]), signature, accumulate, starts[chosen]))
    if settled:
        code = columns.code.copy()
        for _, signature, accumulate, starts in sorted(settled, key=lambda found: found[0]):
            code[starts] = _settled(program, signature, accumulate)
        program.reword(array("q", code.tobytes()))


def _settled(program: Program, signature: Signature, accumulate: bool) -> int:
    """The id of a signature with accumulate decided."""
    return program.signature(signature.definition, {**signature.arguments, "accumulate": accumulate}).id


T = TypeVar("T")


class _Each(dict[int, T]):
    """Something for each buffer, made when it is asked for."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make

    def __missing__(self, id: int) -> T:
        found = self[id] = self._make(id)
        return found


class _Plan:
    """What to look at for instructions of one signature."""

    __slots__ = ("_settled", "adds", "control", "infers", "reads", "signature", "tensor_engine", "writes", "zeroes")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.control = signature.definition.control
        self.infers = inferred(signature)
        self.adds = signature.operand("dst") if signature.arguments.get("accumulate", False) is not False else None
        self.reads = [(o.word, o.type, o) for o in signature.operands if o.reads and o is not self.infers]
        self.writes = [(o.word, o.type, o) for o in signature.operands if o.writes]
        self.zeroes = zeroed(signature)
        self.tensor_engine = runs_on_tensor_engine(signature)
        self._settled: dict[bool, int] = {}

    def settled(self, program: Program, accumulate: bool) -> int:
        """The id of the signature with accumulate decided."""
        found = self._settled.get(accumulate)
        if found is None:
            found = self._settled[accumulate] = _settled(program, self.signature, accumulate)
        return found


def _zeroing(program: Program, type: ViewType, buffer: int, offset: int, missing: np.ndarray, where: int) -> list[int]:
    """Words of instructions that write bytes of 0 to the True elements of `missing`."""
    dtype = dtypes.uint8 if type.dtype is dtypes.float8_e8m0fnu else type.dtype  # powers of two have no 0
    words: list[int] = []
    for corner, shape in _boxes(missing):
        at = offset + sum(c * s for c, s in zip(corner, type.strides, strict=True)) * type.dtype.itemsize
        box = View(ViewType.of(type.region, dtype, shape, type.strides), (buffer, at))
        words += assemble(program, "fill_unwritten", where, dst=box, value=0.0)
    return words


def _boxes(mask: np.ndarray) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Disjoint boxes (corner, shape) that together are the True elements."""
    left = mask.copy()
    while left.any():
        corner = tuple(int(i) for i in np.unravel_index(int(left.argmax()), left.shape))
        shape = [1] * left.ndim
        for dim in range(left.ndim - 1, -1, -1):
            box = tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))
            while corner[dim] + shape[dim] < left.shape[dim]:
                grown = (*box[:dim], slice(corner[dim] + shape[dim], corner[dim] + shape[dim] + 1), *box[dim + 1:])
                if not left[grown].all():
                    break
                shape[dim] += 1
        left[tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))] = False
        yield corner, tuple(shape)
