"""Follow which on-chip bytes have been written: settles accumulate=None and rejects reads of never-written memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nkilite.ir.coverage import (
    Coverage,
    Covered,
    Foreign,
    check_accumulation,
    check_read,
    runs_on_tensor_engine,
)
from nkilite.ir.definition import REGISTRY, Control
from nkilite.ir.loops import Loop, carrying, loops
from nkilite.ir.program import IMMEDIATE, Operand, Program, Signature
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion, ViewType
from nkilite.ir.unwritten import Suspect, report
from nkilite.passes.splice import splice


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
        coverage = [Coverage(b, full=_has_contents(program, b)) for b in program.buffers]
        foreign = [Foreign(b) if b.region is MemoryRegion.psum else None for b in program.buffers]
        suspects: list[Suspect] = []
        all_loops = loops(program)
        begun = 0
        open_loops: list[tuple[Loop, int]] = []  # with the word position of the beginning
        inserted: dict[int, list[int]] = {}
        code = program.code.tolist()
        plans = [_Plan(s) for s in program.signatures]
        start = 0
        for index in range(program.count):
            plan = plans[code[start]]
            for word, kind, operand in plan.reads:
                cover = coverage[code[start + word]]
                if not cover.full and (kind, code[start + word + 1]) not in cover.seen:
                    buffer = program.buffers[code[start + word]]
                    if len(open_loops) > 1 and buffer.loop != open_loops[-1][0].number:
                        continue  # an inner loop may run for the first time in a later iteration of the outer one
                    location = program.locations[code[start + 1]]
                    found = check_read(cover, plan.signature, operand, buffer, code[start + word + 1], location)
                    if found is not None:
                        suspects.append(Suspect(index, found))
            if plan.adds is not None:
                self._check_sum(program, plan, plan.adds, foreign, start)
            if plan.infers is not None:
                cover = coverage[code[start + plan.infers.word]]
                if cover.full or (plan.infers.type, code[start + plan.infers.word + 1]) in cover.seen:
                    program.code[start] = plan.settled(program, True)
                else:
                    self._settle(program, plan, plan.infers, coverage, start, open_loops, inserted)
                if len(plans) < len(program.signatures):
                    plans += [_Plan(s) for s in program.signatures[len(plans):]]
            for word, kind, _ in plan.writes:
                cover = coverage[code[start + word]]
                others = foreign[code[start + word]]
                if others is not None:
                    others.wrote(kind, code[start + word + 1], plan.tensor_engine)
                if not cover.full and (kind, code[start + word + 1]) not in cover.seen:
                    cover.mark(kind, code[start + word + 1])
            if plan.control is Control.begin:
                open_loops.append((all_loops[begun], start))
                begun += 1
            elif plan.control is Control.end:
                open_loops.pop()
            start += plan.width
        report(program, suspects)
        widths = [s.n_words for s in program.signatures]
        code = program.code.tolist()
        splice(program, {at: [*words, *code[at:at + widths[code[at]]]] for at, words in inserted.items()})
        return program

    def _check_sum(
        self, program: Program, plan: _Plan, dst: Operand, foreign: list[Foreign | None], start: int
    ) -> None:
        """Warn of a matmul at a word position that may add to what another engine wrote."""
        id, offset = program.code[start + dst.word], program.code[start + dst.word + 1]
        others = foreign[id]
        if others is not None:
            location = program.locations[program.code[start + 1]]
            check_accumulation(others, plan.signature, dst, program.buffers[id], offset, location)

    def _settle(
        self, program: Program, plan: _Plan, dst: Operand, coverage: list, start: int,
        open_loops: list[tuple[Loop, int]], inserted: dict[int, list[int]],
    ) -> None:
        """Decide accumulate=None of the instruction at a word position, from what is covered of `dst`."""
        code = program.code
        id, offset, where = code[start + dst.word], code[start + dst.word + 1], code[start + 1]
        buffer, cover = program.buffers[id], coverage[id]
        covered = cover.covered(dst.type, offset)
        loop = carrying([loop for loop, _ in open_loops], buffer)
        dynamic = dst.type.indirection is not None
        if covered is Covered.some or (covered is Covered.none and (dynamic or loop is not None)):
            kind, at = (buffer.type, 0) if dynamic else (dst.type, offset)
            first = start if loop is None else next(at for outer, at in open_loops if outer is loop)
            words = _zeroing(program, kind, id, at, cover.unwritten(kind, at), where)
            inserted.setdefault(first, []).extend(words)
            covered = Covered.some
        code[start] = plan.settled(program, covered is not Covered.none)


def _has_contents(program: Program, buffer: Buffer) -> bool:
    """Whether a buffer may hold something before the program writes it: arguments, constants, what cores share."""
    shared = program.cores > 1 and buffer.region is MemoryRegion.shared_hbm
    return shared or buffer.kind is not BufferKind.internal


class _Plan:
    """What to look at for instructions of one signature."""

    __slots__ = ("_settled", "adds", "control", "infers", "reads", "signature", "tensor_engine", "width", "writes")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.control = signature.definition.control
        self.width = signature.n_words
        self.infers = signature.operand("dst") if signature.arguments.get("accumulate", False) is None else None
        self.adds = signature.operand("dst") if signature.arguments.get("accumulate", False) is not False else None
        self.reads = [(o.word, o.type, o) for o in signature.operands if o.reads and o is not self.infers]
        self.writes = [(o.word, o.type, o) for o in signature.operands if o.writes]
        self.tensor_engine = runs_on_tensor_engine(signature)
        self._settled: dict[bool, int] = {}

    def settled(self, program: Program, accumulate: bool) -> int:
        """The id of the signature with accumulate decided."""
        found = self._settled.get(accumulate)
        if found is None:
            arguments = {**self.signature.arguments, "accumulate": accumulate}
            found = self._settled[accumulate] = program.signature(self.signature.definition, arguments).id
        return found


def _zeroing(program: Program, type: ViewType, buffer: int, offset: int, missing: np.ndarray, where: int) -> list[int]:
    """Words of memset instructions that write 0 to the True elements of `missing`."""
    memset = REGISTRY["memset"]
    words: list[int] = []
    for corner, shape in _boxes(missing):
        at = offset + sum(c * s for c, s in zip(corner, type.strides, strict=True)) * type.dtype.itemsize
        box = ViewType.of(type.region, type.dtype, shape, type.strides)
        arguments = {"dst": box, "value": IMMEDIATE, "engine": None}
        normalize = memset.rules.get("normalize")
        if normalize is not None:
            normalize(arguments, program.target)
        words += [program.signature(memset, arguments).id, where, buffer, at, program.constant_id(0.0)]
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
