"""Follow which on-chip bytes have been written: settles accumulate=None and rejects reads of never-written memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from nkilite.ir.coverage import Coverage, Covered, check_read
from nkilite.ir.definition import REGISTRY
from nkilite.ir.program import IMMEDIATE, Program, Signature
from nkilite.ir.types import MemoryRegion, ViewType

_TRACKED = (MemoryRegion.sbuf, MemoryRegion.psum)


class FollowWrites:
    """accumulate=None becomes False where a matmul is the first write of its PSUM region and True elsewhere.

    Coverage is kept per buffer and per byte: banks are reused through `address=`, and kernels fill a tile piecewise.
    A matmul onto a region that is only partly written gets its unwritten part zeroed first and then accumulates.
    """

    def run(self, program: Program) -> Program:
        coverage = {b.id: Coverage(b) for b in program.buffers if b.region in _TRACKED}
        inserted: dict[int, list[int]] = {}
        code = program.code
        plans = [_Plan(s) for s in program.signatures]
        start = 0
        for index in range(program.count):
            plan = plans[code[start]]
            call = plan.signature
            for operand in plan.reads:
                if operand.name == "dst" and plan.infers:
                    continue
                cover = coverage[code[start + operand.word]]
                offset = code[start + operand.word + 1]
                if cover.covered(operand.type, offset) is not Covered.all:
                    buffer = program.buffers[code[start + operand.word]]
                    location = program.locations[code[start + 1]]
                    check_read(cover, call, operand, buffer, offset, location)
            if plan.infers:
                dst = call.operand("dst")
                buffer_id, offset = code[start + dst.word], code[start + dst.word + 1]
                covered = coverage[buffer_id].covered(dst.type, offset)
                if covered is Covered.some:
                    missing = coverage[buffer_id].unwritten(dst.type, offset)
                    inserted[start] = _zeroing(program, dst.type, buffer_id, offset, missing, code[start + 1])
                settled = {**call.arguments, "accumulate": covered is not Covered.none}
                code[start] = program.signature(call.definition, settled).id
                if len(plans) < len(program.signatures):
                    plans.append(_Plan(program.signatures[-1]))
            for operand in plan.writes:
                coverage[code[start + operand.word]].mark(operand.type, code[start + operand.word + 1])
            start += call.n_words
        if inserted:
            _insert(program, inserted)
        return program


class _Plan:
    """The tracked operands of a signature."""

    __slots__ = ("infers", "reads", "signature", "writes")

    def __init__(self, signature: Signature) -> None:
        tracked = [o for o in signature.operands if o.type.region in _TRACKED]
        self.signature = signature
        self.infers = signature.arguments.get("accumulate", False) is None
        self.reads = [o for o in tracked if o.reads]
        self.writes = [o for o in tracked if o.writes]


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


def _insert(program: Program, inserted: dict[int, list[int]]) -> None:
    """Put extra instructions in front of the ones that start at the given words."""
    code, new = program.code, array("q")
    widths = [s.n_words for s in program.signatures]
    moved: list[int] = []  # new index of every old instruction
    start = count = 0
    for _ in range(program.count):
        extra = inserted.get(start, [])
        new.extend(extra)
        at = 0
        while at < len(extra):
            at += widths[extra[at]]
            count += 1
        moved.append(count)
        width = widths[code[start]]
        new.extend(code[start:start + width])
        start += width
        count += 1
    program.code, program.count = new, count
    program.names = {moved[i]: name for i, name in program.names.items()}
    program.dependencies = [(moved[a], moved[b]) for a, b in program.dependencies]
